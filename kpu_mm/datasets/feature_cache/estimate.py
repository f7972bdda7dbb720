"""What a few images tell before a cache is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from kpu_mm.structures import Features

from ..errors import CorruptImageError
from ..unlabeled_dataset import UnlabeledImages
from .chunk import Entry, pack, thumbnail

Extract = Callable[[Sequence[Tensor]], list[Features]]
_SAMPLES = 8
# relative: batches round otherwise, in bfloat16 autocast by up to a percent
_SAME = 0.02


def bytes_per_image(
    images: UnlabeledImages, extract: Extract, dtype: torch.dtype
) -> float:
    """Store a few images, evenly spread over all, and weigh them.

    Exact where all images have one size.

    Args:
        images: The stream's dataset.
        extract: The teacher: images (3, h, w) to features, image by image.
        dtype: What is stored.

    Raises:
        ValueError: If none of them can be read.
    """
    sizes = []
    for pixels in _some(images):
        entry = Entry(extract([pixels])[0], thumbnail(pixels))
        # the header, which many entries share, does not count
        sizes.append(len(pack([entry] * 2, dtype)) - len(pack([entry], dtype)))
    return sum(sizes) / len(sizes)


def check_images_alone(images: UnlabeledImages, extract: Extract) -> None:
    """Refuse a teacher whose word on an image depends on the batch.

    Args:
        images: The stream's dataset.
        extract: The teacher: images (3, h, w) to features, image by image.

    Raises:
        ValueError: If another image in the batch changes features.
    """
    pixels = _some(images)[0]
    (alone,) = extract([pixels])
    beside, _ = extract([pixels, 255 - pixels])
    for a, b in zip(alone.maps, beside.maps, strict=True):
        if (a - b).norm() > _SAME * a.norm():
            raise ValueError(
                'what the teacher says of an image depends on the other '
                'images of its batch, so that it cannot be stored; leave this '
                'teacher out of the cache.'
            )


def _some(images: UnlabeledImages) -> list[Tensor]:
    """Load a few images, evenly spread over all, without corrupt ones."""
    loaded = []
    step = max(1, len(images) // _SAMPLES)
    for image in range(0, len(images), step)[:_SAMPLES]:
        with suppress(CorruptImageError):
            loaded.append(images.view(image, 0)['image'])
    if not loaded:
        raise ValueError(
            f'none of {_SAMPLES} images of the stream can be read; check that '
            'the data are complete.'
        )
    return loaded


def free_bytes(folder: Path) -> int:
    """Free space on the disk that a folder is or will be on.

    Args:
        folder: The folder.
    """
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free


def readable(size: float) -> str:
    """Write a number of bytes with a unit.

    Args:
        size: The number.
    """
    for unit in ('B', 'kB', 'MB', 'GB', 'TB'):
        if size < 999.5 or unit == 'TB':
            break
        size /= 1000
    return f'{size:.3g} {unit}'
