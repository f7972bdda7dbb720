"""The pyramid: levels of the adapter and maps of the ViT together."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


def merge_levels(
    norms: nn.ModuleList, levels: Sequence[Tensor], vit_maps: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Add the ViT's own maps, resized to each level, and normalise.

    Args:
        norms: One norm layer for each of the four levels.
        levels: Four levels, (B, C, H_i, W_i).
        vit_maps: The map after each interaction block, (B, C, H, W).

    Returns:
        Four maps, (B, C, H_i, W_i).
    """
    last = len(vit_maps) - 1
    merged = []
    for i, (norm, level) in enumerate(zip(norms, levels, strict=True)):
        # Level i of 4 takes the map after block i of K = 4.
        vit_map = F.interpolate(
            vit_maps[round(i * last / 3)],
            size=level.shape[-2:],
            mode='bilinear',
            align_corners=False,
        )
        merged.append(norm(level + vit_map))
    return tuple(merged)
