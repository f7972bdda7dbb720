"""The best class at each pixel of an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kpu_mm.structures import bilinear

_AT_ONCE = 8  # classes whose logits are held at the size of the image


def label_map(logits: Tensor, size: Sequence[int]) -> Tensor:
    """The best class at each pixel, without all logits at that size.

    Args:
        logits: (K, h, w).
        size: Height and width of the image.

    Returns:
        (H, W) int64.
    """
    best: Tensor | None = None
    for first in range(0, len(logits), _AT_ONCE):
        part = resize(logits[first : first + _AT_ONCE], size)
        value, label = part.max(0)
        if best is None:
            best, labels = value, label
        else:
            better = value > best
            best = torch.where(better, value, best)
            labels = torch.where(better, label + first, labels)
    return labels


def resize(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Bring logits to the size of the image.

    Args:
        logits: (K, h, w).
        size: Height and width of the image.

    Returns:
        (K, H, W).
    """
    return bilinear(logits[None], (size[0], size[1]))[0]
