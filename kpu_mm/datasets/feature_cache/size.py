"""How large a feature cache will be."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kpu_mm.structures import Features

from ..errors import CorruptImageError
from ..unlabeled_dataset import UnlabeledImages
from .chunk import Entry, pack, thumbnail

_SAMPLES = 8


def bytes_per_image(
    images: UnlabeledImages,
    extract: Callable[[Sequence[Tensor]], list[Features]],
    dtype: torch.dtype,
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
    step = max(1, len(images) // _SAMPLES)
    for image in range(0, len(images), step)[:_SAMPLES]:
        try:
            pixels = images.view(image, 0)['image']
        except CorruptImageError:
            continue
        entry = Entry(extract([pixels])[0], thumbnail(pixels))
        # the header, which many entries share, does not count
        sizes.append(len(pack([entry] * 2, dtype)) - len(pack([entry], dtype)))
    if not sizes:
        raise ValueError(
            f'none of {_SAMPLES} images of the stream can be read; check that '
            'the data are complete.'
        )
    return sum(sizes) / len(sizes)


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
