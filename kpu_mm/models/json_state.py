"""JSON inside a state dict, which holds tensors only."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor


def to_tensor(value: Any) -> Tensor:
    """JSON as the bytes of a tensor.

    Args:
        value: What JSON can hold.

    Returns:
        (N,) uint8.
    """
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


def from_tensor(state: Tensor) -> Any:
    """Read what :func:`to_tensor` wrote.

    Args:
        state: (N,) uint8.
    """
    return json.loads(bytes(state.tolist()).decode())
