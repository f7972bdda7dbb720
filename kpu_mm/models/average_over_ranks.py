"""The mean of a tensor over all processes."""

from __future__ import annotations

import torch.distributed as dist
from mmengine.dist import get_world_size
from torch import Tensor


def average_over_ranks(values: Tensor) -> Tensor:
    """Replace each process's values by their mean over all processes.

    Args:
        values: Of the same shape in every process, changed in place.

    Returns:
        The tensor itself.
    """
    if get_world_size() > 1:
        dist.all_reduce(values)
        values /= get_world_size()
    return values
