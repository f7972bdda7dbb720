"""Groups of scans that look alike, found without their labels."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 30


def find_prototypes(scans: Tensor, count: int, seed: int = 0) -> Tensor:
    """Group scans by k-means.

    Args:
        scans: (N, D).
        count: Number of groups.
        seed: Of the first centres. Defaults to 0.

    Returns:
        The group of each scan, (N,) int64.
    """
    generator = torch.Generator().manual_seed(seed)
    first = torch.randperm(len(scans), generator=generator)[:count]
    centres = scans[first]
    for _ in range(_ROUNDS):
        groups = torch.cdist(scans, centres).argmin(1)
        sizes = torch.bincount(groups, minlength=count).clamp(min=1)
        sums = torch.zeros_like(centres).index_add_(0, groups, scans)
        # a group that lost all its scans keeps its centre
        empty = torch.bincount(groups, minlength=count) == 0
        centres = torch.where(empty[:, None], centres, sums / sizes[:, None])
    return torch.cdist(scans, centres).argmin(1)
