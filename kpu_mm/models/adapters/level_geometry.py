"""Shapes of levels, their tokens and their reference points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..layers.deform_attention import LevelShapes


def flatten_levels(maps: Sequence[Tensor]) -> Tensor:
    """Maps, each (B, C, H_l, W_l) -> tokens (B, sum of H_l * W_l, C)."""
    return torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)


def split_levels(tokens: Tensor, level_shapes: LevelShapes) -> list[Tensor]:
    """Tokens (B, sum of H_l * W_l, C) -> maps, each (B, C, H_l, W_l)."""
    levels = tokens.split([h * w for h, w in level_shapes], dim=1)
    return [
        level.transpose(1, 2).unflatten(2, (height, width))
        for level, (height, width) in zip(levels, level_shapes, strict=True)
    ]


def reference_points(level_shapes: LevelShapes, like: Tensor) -> Tensor:
    """Centres of all cells as (x, y) in [0, 1].

    Args:
        level_shapes: (H_l, W_l) of each level.
        like: A tensor whose device the points take; half precision is
            raised to float32, which places them exactly enough.

    Returns:
        (sum of H_l * W_l, 2), levels one after another, row-major.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    points = []
    for height, width in level_shapes:
        y = torch.arange(height, dtype=dtype, device=like.device) + 0.5
        x = torch.arange(width, dtype=dtype, device=like.device) + 0.5
        grid_y, grid_x = torch.meshgrid(y / height, x / width, indexing='ij')
        points.append(torch.stack((grid_x, grid_y), -1).flatten(0, 1))
    return torch.cat(points)
