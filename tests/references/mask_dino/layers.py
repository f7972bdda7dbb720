"""Parts that pixel decoder and query decoder share, written plainly.

Names of modules are those of the official checkpoints.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class MLP(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            x = layer(x) if i == 0 else layer(F.relu(x))
        return x


class MSDeformAttn(nn.Module):
    """Around points (B, Q, 2) or boxes (B, Q, 4), the same on all levels."""

    def __init__(self, dims, levels, heads, points):
        super().__init__()
        self.levels, self.heads, self.points = levels, heads, points
        self.sampling_offsets = nn.Linear(dims, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dims, heads * levels * points)
        self.value_proj = nn.Linear(dims, dims)
        self.output_proj = nn.Linear(dims, dims)

    def forward(self, query, reference, memory, shapes):
        b, q, dims = query.shape
        m, p = self.heads, self.points
        value = self.value_proj(memory)
        offsets = self.sampling_offsets(query)
        offsets = offsets.view(b, q, m, self.levels, p, 2)
        weights = self.attention_weights(query).view(b, q, m, -1)
        weights = weights.softmax(-1).view(b, q, m, self.levels, p)
        out = query.new_zeros(b, q, m, dims // m)
        start = 0
        for level, (h, w) in enumerate(shapes):
            maps = value[:, start : start + h * w]
            start += h * w
            for head in range(m):
                lo, hi = head * dims // m, (head + 1) * dims // m
                one = maps[..., lo:hi].transpose(1, 2).reshape(b, -1, h, w)
                step = offsets[:, :, head, level]  # (B, Q, P, 2)
                if reference.shape[-1] == 2:
                    step = step / step.new_tensor([w, h])
                else:
                    step = step / p * reference[:, :, None, 2:] * 0.5
                where = reference[:, :, None, :2] + step
                got = F.grid_sample(one, 2 * where - 1, align_corners=False)
                weight = weights[:, None, :, head, level]  # (B, 1, Q, P)
                summed = (got * weight).sum(-1)  # (B, D, Q)
                out[:, :, head] = out[:, :, head] + summed.transpose(1, 2)
        return self.output_proj(out.flatten(2))


def sine(x, features):
    """Interleaved sines and cosines of angles (...) -> (..., features)."""
    k = torch.arange(features // 2, dtype=x.dtype)
    angle = x[..., None] / 10000 ** (2 * k / features)
    return torch.stack((angle.sin(), angle.cos()), -1).flatten(-2)


def map_code(h, w, dims, dtype):
    """Position code of a map, (H * W, C): first y, then x."""
    y = torch.arange(1, h + 1, dtype=dtype) / (h + 1e-6) * 2 * math.pi
    x = torch.arange(1, w + 1, dtype=dtype) / (w + 1e-6) * 2 * math.pi
    y, x = torch.meshgrid(y, x, indexing='ij')
    return torch.cat((sine(y, dims // 2), sine(x, dims // 2)), -1).flatten(0, 1)


def box_code(boxes, dims):
    """Position code of (cx, cy, w, h): in the order y, x, w, h."""
    return torch.cat([sine(boxes[..., i] * 2 * math.pi, dims // 2) for i in (1, 0, 2, 3)], -1)


def cell_centres(h, w, dtype):
    """(H * W, 2) as (x, y) in [0, 1]."""
    y = (torch.arange(h, dtype=dtype) + 0.5) / h
    x = (torch.arange(w, dtype=dtype) + 0.5) / w
    y, x = torch.meshgrid(y, x, indexing='ij')
    return torch.stack((x, y), -1).flatten(0, 1)
