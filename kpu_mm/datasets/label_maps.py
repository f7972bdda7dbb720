"""Label maps of semantic segmentation: compared with their image, and counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from kpu_mm.registry import TRANSFORMS

from .encoded_image import DataError

_IGNORED = 255  # the label of unlabelled pixels in MMSegmentation
# So many maps are read before a run, evenly over the dataset.
_SAMPLES = 50


@TRANSFORMS.register_module()
class CheckLabelMap(BaseTransform):
    """Compare a label map with its image, after both are loaded.

    It costs two comparisons an image. Without it, resizing stretches the
    labels over the image, and training goes on.

    Inferencers take the loading of labels out of a pipeline: without a label
    map there is nothing to compare.

    Required keys: ``ori_shape``, and with ``gt_seg_map`` also ``img_path``
    and ``seg_map_path``.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Compare the sizes.

        Args:
            results: After an image and a label map were loaded.

        Raises:
            DataError: If their sizes differ.
        """
        if 'gt_seg_map' not in results:
            return results
        image, labels = tuple(results['ori_shape'][:2]), results['gt_seg_map'].shape[:2]
        if image != labels:
            turned = ' (is the photograph turned by its EXIF data?)' * (image == labels[::-1])
            raise DataError(
                f'{results["img_path"]} is {image[0]} x {image[1]} pixels (height x width), but '
                f'its label map {results["seg_map_path"]} is {labels[0]} x {labels[1]}{turned}; '
                'replace one of them.'
            )
        return results


def check_label_maps(dataset: Any) -> None:
    """Read some label maps and raise if no pixel of them counts.

    Args:
        dataset: A dataset of MMSegmentation, or one that wraps such.

    Raises:
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
        samples = [s for s in samples if s.get('seg_map_path')]
        if not samples:
            continue
        for sample in samples:
            labels = loader(dict(sample))['gt_seg_map']
            if (labels != _IGNORED).any():
                break
        else:
            zero = samples[0].get('reduce_zero_label')
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
