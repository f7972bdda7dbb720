"""Bring features onto the grids of others."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kpu_mm.structures import Features


def resize(features: Features, like: Features) -> Features:
    """Resize each map bilinearly to the same map of ``like``.

    A cell of the result is valid only if no padding had a share in it.

    Args:
        features: Maps, each (B, C_i, H_i, W_i).
        like: As many maps, each (B, C'_i, H'_i, W'_i).

    Returns:
        The summary as it was, maps (B, C_i, H'_i, W'_i) and their masks.
    """
    sizes = [(m.shape[-2], m.shape[-1]) for m in like.maps]
    maps = tuple(
        bilinear(m, size) for m, size in zip(features.maps, sizes, strict=True)
    )
    if features.masks is None:
        return Features(features.summary, maps)
    masks = tuple(
        # 1 up to rounding where all four neighbours are valid
        bilinear(mask.float(), size) > 1 - 1e-4
        for mask, size in zip(features.masks, sizes, strict=True)
    )
    return Features(features.summary, maps, masks)


def bilinear(m: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map, if it has another size.

    Args:
        m: (B, C, H, W).
        size: Height and width.
    """
    if m.shape[-2:] == size:
        return m
    return F.interpolate(m, size, mode='bilinear', align_corners=False)
