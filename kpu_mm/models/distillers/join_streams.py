"""One teacher's losses, whatever the streams it sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def join_streams(parts: Sequence[Tensor], num_streams: int) -> Tensor:
    """Join a teacher's losses so that each of its streams counts the same.

    The mean of the result is the sum of the parts' means over the number of
    streams: that of all streams together is the sum of what each one gives
    by itself, as ``backward='per_stream'`` needs it.

    Args:
        parts: For some or all of the teacher's streams, one value per image,
            each (B_s,).
        num_streams: How many streams the teacher sees.

    Returns:
        (B,), B the sum of the B_s.
    """
    total = sum(len(part) for part in parts)
    return torch.cat(
        [part * (total / (num_streams * len(part))) for part in parts]
    )
