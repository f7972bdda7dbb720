"""Initial values with which a small plain ViT learns from few images.

After `mimetic initialization <https://arxiv.org/abs/2305.09828>`_: positions
start as sines and cosines, and each head attends to similar tokens, which at
first are near ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SHARPNESS = (0.6, 1.2)


def position_table(rows: int, columns: int, channels: int) -> Tensor:
    """Sines and cosines of rows and columns, (rows * columns, channels)."""
    frequencies = (
        0.5
        * math.pi
        * 0.5 ** (torch.arange(channels // 4) * 4 / (channels // 4))
    )
    parts = []
    for axis in torch.meshgrid(
        torch.arange(rows), torch.arange(columns), indexing='ij'
    ):
        angles = axis.reshape(-1, 1) * frequencies
        parts += [angles.sin(), angles.cos()]
    return torch.cat(parts, 1)


def similar_tokens_(query: Tensor, key: Tensor, heads: int) -> None:
    """Let queries and keys of a head be the same random projection.

    Args:
        query: Weight, (C, C), changed in place.
        key: Weight, (C, C), changed in place.
        heads: Number of heads.
    """
    channels = query.shape[0]
    size = channels // heads
    low, high = _SHARPNESS
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        basis = torch.linalg.qr(torch.randn(channels, size))[0].T
        gain = low + (high - low) * head / max(1, heads - 1)
        query.data[part] = gain * basis
        key.data[part] = gain * basis
