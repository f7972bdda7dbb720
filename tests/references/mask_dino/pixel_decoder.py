"""Deformable encoder over several maps and one FPN step.

``order='high2low'``: the encoder starts with the lowest resolution (the
official name misleads); ``'low2high'``: with the highest.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .layers import MSDeformAttn, cell_centres, map_code


class NormedConv(nn.Conv2d):
    """Convolution without bias, group norm, perhaps ReLU."""

    def __init__(self, inside, outside, kernel, relu):
        super().__init__(inside, outside, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(32, outside)
        self.relu = relu

    def forward(self, x):
        x = self.norm(super().forward(x))
        return F.relu(x) if self.relu else x


class EncoderLayer(nn.Module):
    def __init__(self, dims, ffn, levels, heads):
        super().__init__()
        self.self_attn = MSDeformAttn(dims, levels, heads, 4)
        self.norm1 = nn.LayerNorm(dims)
        self.linear1 = nn.Linear(dims, ffn)
        self.linear2 = nn.Linear(ffn, dims)
        self.norm2 = nn.LayerNorm(dims)

    def forward(self, x, code, reference, shapes):
        x = self.norm1(x + self.self_attn(x + code, reference, x, shapes))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class Encoder(nn.Module):
    def __init__(self, dims, ffn, levels, heads, depth):
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dims, ffn, levels, heads) for _ in range(depth))


class Transformer(nn.Module):
    def __init__(self, dims, ffn, levels, heads, depth):
        super().__init__()
        self.encoder = Encoder(dims, ffn, levels, heads, depth)
        self.level_embed = nn.Parameter(torch.randn(levels, dims))

    def forward(self, maps):
        b, dims = maps[0].shape[:2]
        dtype = maps[0].dtype
        shapes = [m.shape[2:] for m in maps]
        x = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        code = torch.cat(
            [map_code(h, w, dims, dtype) + self.level_embed[i] for i, (h, w) in enumerate(shapes)]
        )
        reference = torch.cat([cell_centres(h, w, dtype) for h, w in shapes])
        reference = reference.expand(b, -1, -1)
        for layer in self.encoder.layers:
            x = layer(x, code, reference, shapes)
        parts = x.split([h * w for h, w in shapes], 1)
        return [
            part.transpose(1, 2).reshape(b, dims, h, w)
            for part, (h, w) in zip(parts, shapes, strict=True)
        ]


class PixelDecoder(nn.Module):
    """Maps res2..res5 -> mask features and memories in encoder order.

    ``encoded`` says how many of the backbone's maps, from the coarsest on,
    enter the encoder; ``extra`` adds a level below res5.
    """

    def __init__(
        self,
        channels=(256, 512, 1024, 2048),
        encoded=3,
        extra=False,
        order='high2low',
        dims=256,
        mask_dims=256,
        ffn=1024,
        heads=8,
        depth=6,
    ):
        super().__init__()
        self.encoded, self.extra, self.order = encoded, extra, order
        inside = list(channels[-encoded:])
        kernels = [1] * encoded
        if extra:
            inside.append(channels[-1])
            kernels.append(3)
        if order == 'high2low':
            inside, kernels = inside[::-1], kernels[::-1]
        self.input_proj = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c, dims, k, stride=1 if k == 1 else 2, padding=k // 2),
                nn.GroupNorm(32, dims),
            )
            for c, k in zip(inside, kernels, strict=True)
        )
        self.transformer = Transformer(dims, ffn, len(inside), heads, depth)
        self.adapter_1 = NormedConv(channels[0], dims, 1, relu=False)
        self.layer_1 = NormedConv(dims, dims, 3, relu=True)
        self.mask_features = nn.Conv2d(dims, mask_dims, 1)

    def forward(self, features):
        maps = list(features[-self.encoded :])
        if self.extra:
            maps.append(features[-1])
        if self.order == 'high2low':
            maps = maps[::-1]
        maps = [proj(x) for proj, x in zip(self.input_proj, maps, strict=True)]
        memories = self.transformer(maps)
        finest = memories[-1 if self.order == 'high2low' else 0]
        lateral = self.adapter_1(features[0])
        fine = lateral + F.interpolate(
            finest, lateral.shape[2:], mode='bilinear', align_corners=False
        )
        return self.mask_features(self.layer_1(fine)), memories
