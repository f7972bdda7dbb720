"""Antialiased resizing of decoded images."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import interpolate

INTERPOLATIONS = ('bilinear', 'bicubic')


def check_interpolation(name: str) -> str:
    """Return the name if it is one that :func:`resize_image` knows.

    Args:
        name: ``'bilinear'`` or ``'bicubic'``.

    Raises:
        ValueError: If it is another.
    """
    if name not in INTERPOLATIONS:
        raise ValueError(
            f"`interpolation` is '{name}'; choose one of {INTERPOLATIONS}."
        )
    return name


def resize_image(
    image: np.ndarray, size: tuple[int, int], interpolation: str
) -> np.ndarray:
    """Resize photographs as Pillow does, to two grey levels, but faster.

    Args:
        image: (h, w, 3) uint8.
        size: Height and width of the result.
        interpolation: ``'bilinear'`` or ``'bicubic'``.

    Returns:
        (H, W, 3) uint8.
    """
    if image.shape[:2] == size:
        return image
    # (h, w, 3) -> (1, 3, h, w) in channels-last memory: torch has a
    # vectorised kernel for exactly this layout and type.
    pixels = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
    resized = interpolate(pixels, size, mode=interpolation, antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
