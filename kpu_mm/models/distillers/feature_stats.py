"""How far apart teachers' feature scales are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kpu_mm.structures import Features


@torch.no_grad()
def feature_std(features: Features) -> Tensor:
    """Standard deviation over all values of all maps, padding left out.

    Args:
        features: Maps, each (B, C_i, H_i, W_i).

    Returns:
        A float32 scalar.
    """
    masks = features.masks or (None,) * len(features.maps)
    device = features.maps[0].device
    count, total, squares = torch.zeros(3, dtype=torch.float64, device=device)
    for m, mask in zip(features.maps, masks, strict=True):
        values = m.float()
        if mask is not None:
            values = values.masked_fill(~mask, 0)
            count += mask.sum() * m.shape[1]
        else:
            count += m.numel()
        total += values.sum(dtype=torch.float64)
        squares += values.square().sum(dtype=torch.float64)
    variance = squares / count - (total / count).square()
    return variance.clamp(min=0).sqrt().float()


def std_ratio(stds: Mapping[str, Tensor]) -> Tensor:
    """Largest over smallest standard deviation of all teachers."""
    values = torch.stack(list(stds.values()))
    return values.max() / values.min()
