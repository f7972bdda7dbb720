"""Label maps of semantic segmentation: compared with their image, and counted."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import get
from PIL import Image, UnidentifiedImageError

from kpu_mm.registry import TRANSFORMS

from .encoded_image import DataError

_IGNORED = 255  # the label of unlabelled pixels in MMSegmentation
# So many maps are read before a run, evenly over the dataset.
_SAMPLES = 50
# Modes of Pillow with 8 bits for each pixel or less, and with more.
_NARROW = ('1', 'L', 'P')
_WIDE = ('I', 'F', 'I;16', 'I;16B', 'I;16L')


@TRANSFORMS.register_module()
class CheckLabelMap(BaseTransform):
    """Look at the file of a label map before MMSegmentation loads it.

    Without it, labels of another size are stretched over the image, those
    above 255 wrap around, and an error names no file. Only the header of an
    8-bit file is read.

    Inferencers load no label maps; then there is nothing to look at.

    Required keys: ``ori_shape``, and with ``seg_map_path`` also ``img_path``.

    Args:
        backend_args: Where MMEngine reads files from. Defaults to None, the
            path's own.
    """

    def __init__(self, backend_args: dict[str, Any] | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Compare the sizes, and see that the file holds labels.

        Args:
            results: After an image was loaded.

        Raises:
            DataError: If the file cannot be read, holds no labels of 8 bits,
                or is of another size than the image.
        """
        path = results.get('seg_map_path')
        if path is None:
            return results
        image, labels = tuple(results['ori_shape'][:2]), _read_size(path, self.backend_args)
        if image != labels:
            turned = ' (is the photograph turned by its EXIF data?)' * (image == labels[::-1])
            raise DataError(
                f'{results["img_path"]} is {image[0]} x {image[1]} pixels (height x width), but '
                f'its label map {path} is {labels[0]} x {labels[1]}{turned}; '
                'replace one of them.'
            )
        return results


def _read_size(path: str, backend_args: dict[str, Any] | None = None) -> tuple[int, int]:
    """Height and width of a label map; DataError if it is none."""
    fault = ''
    try:
        data = get(path, backend_args=backend_args)
        with Image.open(BytesIO(data)) as file:
            if file.format == 'JPEG':
                fault = 'is a JPEG, which changes values; save labels as PNG'
            elif 1 in file.size:
                fault = 'has a side of one pixel, which MMSegmentation drops; remove it'
            elif file.mode in _WIDE:
                values = np.asarray(file)
                if values.min() < 0 or values.max() > 255 or (values % 1).any():
                    fault = (
                        f'has values from {values.min()} to {values.max()}, but labels must be '
                        'integers from 0 to 255, of which 255 is ignored'
                    )
            elif file.mode not in _NARROW:
                fault = (
                    f'has colours (mode {file.mode}), but a label map has one number for each '
                    'pixel; convert colours to labels'
                )
            # A whole PNG ends with this; anything else is decoded to know.
            elif not data.endswith(b'IEND\xaeB`\x82'):
                file.load()
            size = file.height, file.width
    except UnidentifiedImageError:
        fault = 'is no image; replace it'
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        fault = f'cannot be read ({getattr(error, "strerror", None) or error}); replace it'
    if fault:
        raise DataError(f'The label map {path} {fault}.')
    return size


def check_label_maps(dataset: Any) -> None:
    """Read some label maps and raise if no pixel of them counts.

    Args:
        dataset: A dataset of MMSegmentation or MMDetection, or one that wraps
            such. Files of panoptic segments are not read.

    Raises:
        DataError: If a file is no label map.
        ValueError: If all pixels that were read have the label 255, or have
            it after ``reduce_zero_label``: the loss would be 0.
    """
    for part in _leaves(dataset):
        transforms = getattr(getattr(part, 'pipeline', None), 'transforms', [])
        loader = next((t for t in transforms if getattr(t, 'with_seg', False)), None)
        if loader is None or not len(part):
            continue
        indices = np.linspace(0, len(part) - 1, min(len(part), _SAMPLES)).astype(int)
        samples = [part.get_data_info(int(i)) for i in indices]
        # A panoptic file has numbers of segments in its colours, no labels.
        samples = [s for s in samples if s.get('seg_map_path') and 'segments_info' not in s]
        if not samples:
            continue
        for sample in samples:
            _read_size(sample['seg_map_path'], loader.backend_args)
            # Masks of instances, which it may load too, need an image.
            loader._load_seg_map(found := dict(sample))
            if (found['gt_seg_map'] != _IGNORED).any():
                break
        else:
            # MMDetection's loader has it; MMSegmentation's has asked the dataset.
            zero = getattr(loader, 'reduce_zero_label', False)
            raise ValueError(
                f'no pixel counts in {len(samples)} label maps, of which the first is '
                f'{samples[0]["seg_map_path"]}: all have the label {_IGNORED}, which is ignored'
                + (', or 0, which reduce_zero_label=True ignores' if zero else '')
                + f'; write classes as {1 if zero else 0}, {2 if zero else 1}, ...'
                + (', or set reduce_zero_label=False.' if zero else '.')
            )


def _leaves(dataset: Any) -> Iterator[Any]:
    """The datasets within wrappers: concatenated, repeated, endless ones."""
    if hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from _leaves(part)
    elif hasattr(dataset, 'dataset'):
        yield from _leaves(dataset.dataset)
    else:
        yield dataset
