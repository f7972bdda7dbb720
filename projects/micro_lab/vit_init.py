"""Initial values with which a small plain ViT learns from few images.

Positions have channels of their own, in which each head finds one neighbour
of a patch, so that attention starts as a convolution (`structured
initialization <https://arxiv.org/abs/2404.01139>`_).
"""

from __future__ import annotations

import torch
from torch import Tensor

# of sines and cosines of rows and columns, for each patch
_FREQUENCIES = torch.tensor([1.8, 1.2, 0.8, 0.4])
POSITION_CHANNELS = 4 * len(_FREQUENCIES)
_AMPLITUDE = 1.5
_SHARPNESS = 1.7
_NOISE = 0.02
_NEIGHBOURS = (
    (0, 1),
    (0, -1),
    (1, 0),
    (-1, 0),
    (1, 1),
    (1, -1),
    (-1, 1),
    (-1, -1),
)


def position_table(rows: int, columns: int, channels: int) -> Tensor:
    """Sines and cosines of rows and columns in the first channels.

    Args:
        rows: Rows of patches.
        columns: Columns of patches.
        channels: Width of the ViT; all but the first are zero.

    Returns:
        (rows * columns, channels).
    """
    table = torch.zeros(rows * columns, channels)
    parts = []
    for axis in torch.meshgrid(
        torch.arange(rows), torch.arange(columns), indexing='ij'
    ):
        angles = axis.reshape(-1, 1) * _FREQUENCIES
        parts += [angles.sin(), angles.cos()]
    table[:, :POSITION_CHANNELS] = _AMPLITUDE * torch.cat(parts, 1)
    return table


def neighbour_heads_(query: Tensor, key: Tensor, heads: int) -> None:
    """Let each head attend to the patch at one of eight places around.

    Args:
        query: Weight, (C, C), changed in place.
        key: Weight, (C, C), changed in place.
        heads: Number of heads; each has POSITION_CHANNELS channels or more.
    """
    size = query.shape[0] // heads
    number = len(_FREQUENCIES)
    for head in range(heads):
        q, k = query.data[head * size :][:size], key.data[head * size :][:size]
        for weight in (q, k):
            weight.normal_(0, _NOISE)
        # sin and cos of f (x + d) from those of f x
        for axis, step in enumerate(_NEIGHBOURS[head % len(_NEIGHBOURS)]):
            sin = 2 * axis * number + torch.arange(number)
            cos = sin + number
            turn = _FREQUENCIES * step
            k[sin, sin] = k[cos, cos] = _SHARPNESS
            q[sin, sin] = q[cos, cos] = _SHARPNESS * turn.cos()
            q[sin, cos] = _SHARPNESS * turn.sin()
            q[cos, sin] = -_SHARPNESS * turn.sin()


def spread_patches_(weight: Tensor) -> None:
    """Embed patches at random, in all channels but the positions'.

    Args:
        weight: Of the convolution, (C, 3, P, P), changed in place.
    """
    weight.data.normal_(0, weight[0].numel() ** -0.5)
    weight.data[:POSITION_CHANNELS] = 0
