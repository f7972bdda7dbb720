"""Interaction blocks of ViT-Adapter: how a ViT and the levels exchange.

ViT-Adapter (https://arxiv.org/abs/2205.08534), figure 4: an injector gives
the ViT's tokens the fine detail of the levels, a span of the ViT's layers
follows, then extractors give the levels what the ViT has made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from .deform_attention import DeformableAttention, LevelShapes, split_levels

# Channels of attention values and of the hidden layer over the ViT's width:
# deform_ratio and cffn_ratio in ViT-Adapter's configs of ViT-B and ViT-L.
VALUE_RATIO, FFN_RATIO = 0.5, 0.25


class Geometry(NamedTuple):
    """Where the tokens of one forward pass lie.

    Args:
        num_prefix: Tokens before the patches (CLS and registers).
        grid: Rows and columns of the ViT's patches.
        level_shapes: (H_l, W_l) of strides 8, 16 and 32.
        patch_points: Centres of the patches, (N, 2).
        level_points: Centres of the level cells, (S, 2).
    """

    num_prefix: int
    grid: tuple[int, int]
    level_shapes: LevelShapes
    patch_points: Tensor
    level_points: Tensor


class LayerNorm(nn.LayerNorm):
    """LayerNorm in the precision of its input, under autocast too.

    Autocast would cast the input and the result, and so keep all tokens in
    float32. Inside, the kernel computes in float32 in any case.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis, (..., C).

        Args:
            x: Tokens.
        """
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class _Attending(nn.Module):
    """Normalised queries attend to normalised features.

    Args:
        embed_dims: Channels.
        attention: Arguments of :class:`DeformableAttention` besides
            ``embed_dims``.
    """

    def __init__(self, embed_dims: int, attention: dict[str, Any]) -> None:
        super().__init__()
        self.query_norm = LayerNorm(embed_dims, eps=1e-6)
        self.feat_norm = LayerNorm(embed_dims, eps=1e-6)
        self.attn = DeformableAttention(embed_dims, **attention)

    def attend(self, query: Tensor, points: Tensor, value: Tensor, shapes: LevelShapes) -> Tensor:
        out: Tensor = self.attn(self.query_norm(query), points, self.feat_norm(value), shapes)
        return out


class Injector(_Attending):
    """x + gamma * attention(norm(x), norm(levels)).

    ViT-Adapter (https://arxiv.org/abs/2205.08534), equation 1.

    Args:
        embed_dims: Channels.
        attention: Arguments of :class:`DeformableAttention` besides
            ``embed_dims``.
    """

    def __init__(self, embed_dims: int, attention: dict[str, Any]) -> None:
        super().__init__(embed_dims, attention)
        # At 0 the ViT tokens pass unchanged: an untrained backbone's summary
        # is the sentinel's own.
        self.gamma = nn.Parameter(torch.zeros(embed_dims))

    def forward(self, patches: Tensor, levels: Tensor, geometry: Geometry) -> Tensor:
        """Add the levels' detail to the ViT's patch tokens.

        Args:
            patches: ViT patch tokens, (B, N, C).
            levels: Level tokens, (B, S, C).
            geometry: Where tokens and levels lie.

        Returns:
            (B, N, C).
        """
        # queries are the patches, values the cells of all levels
        points, shapes = geometry.patch_points, geometry.level_shapes
        injected = self.attend(patches, points, levels, shapes)
        # the patches keep their precision
        return patches + self.gamma.to(patches.dtype) * injected


class ConvFFN(nn.Module):
    """Linear, depth-wise 3x3 convolution on each level, GELU, linear.

    ViT-Adapter (https://arxiv.org/abs/2205.08534), section 3.4.

    Args:
        embed_dims: Channels in and out.
        hidden_dims: Channels between.
    """

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.dwconv = nn.Conv2d(hidden_dims, hidden_dims, 3, padding=1, groups=hidden_dims)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dims, embed_dims)

    def forward(self, tokens: Tensor, level_shapes: LevelShapes) -> Tensor:
        """Map level tokens (B, S, C) -> (B, S, C).

        Args:
            tokens: Tokens of all levels, one after another, row-major.
            level_shapes: (H_l, W_l) of each level, S = sum of H_l * W_l.
        """
        levels = split_levels(self.fc1(tokens), level_shapes)
        # each (B, C', H_l, W_l) -> (B, C', S) -> (B, S, C'); joined before
        # the transpose, as another memory layout rounds differently
        mixed = [self.dwconv(level).flatten(2) for level in levels]
        hidden = torch.cat(mixed, dim=2).transpose(1, 2)
        out: Tensor = self.fc2(self.act(hidden))
        return out


class Extractor(_Attending):
    """c + attention(norm(c), norm(x)), then c + FFN(norm(c)).

    ViT-Adapter (https://arxiv.org/abs/2205.08534), equations 2 and 3.

    Args:
        embed_dims: Channels.
        attention: Arguments of :class:`DeformableAttention` besides
            ``embed_dims``.
        drop_path: Probability of dropping the feed-forward branch, per
            image.
    """

    def __init__(self, embed_dims: int, attention: dict[str, Any], drop_path: float) -> None:
        super().__init__(embed_dims, attention)
        self.ffn_norm = LayerNorm(embed_dims, eps=1e-6)
        self.ffn = ConvFFN(embed_dims, int(embed_dims * FFN_RATIO))
        self.drop_path = DropPath(drop_path)

    def forward(self, levels: Tensor, patches: Tensor, geometry: Geometry) -> Tensor:
        """Add the ViT's features to the level tokens.

        Args:
            levels: Level tokens, (B, S, C).
            patches: ViT patch tokens, (B, N, C).
            geometry: Where tokens and levels lie.

        Returns:
            (B, S, C).
        """
        levels = levels + self.attend(levels, geometry.level_points, patches, [geometry.grid])
        ffn = self.ffn(self.ffn_norm(levels), geometry.level_shapes)
        out: Tensor = levels + self.drop_path(ffn)
        return out


class InteractionBlock(nn.Module):
    """One of the K exchanges between ViT and spatial prior.

    ViT-Adapter (https://arxiv.org/abs/2205.08534), figure 4.

    Args:
        embed_dims: Channels.
        num_heads: Heads of both attentions.
        num_points: Sampling points per head and level.
        drop_path: Drop path of the extractors.
        num_extractors: Extractors after the ViT layers.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_points: int,
        drop_path: float,
        num_extractors: int,
    ) -> None:
        super().__init__()
        attention = dict(num_heads=num_heads, num_points=num_points, value_ratio=VALUE_RATIO)
        # The injector looks at strides 8, 16 and 32, an extractor at the
        # patches of the ViT.
        several = {**attention, 'num_levels': 3}
        single = {**attention, 'num_levels': 1}
        self.injector = Injector(embed_dims, several)
        self.extractors = nn.ModuleList(
            Extractor(embed_dims, single, drop_path) for _ in range(num_extractors)
        )

    def forward(
        self,
        tokens: Tensor,
        levels: Tensor,
        vit_layers: Callable[[Tensor], Tensor],
        geometry: Geometry,
    ) -> tuple[Tensor, Tensor]:
        """Inject, run the ViT layers, extract.

        Args:
            tokens: All ViT tokens, (B, P + N, C), P prefix tokens first.
            levels: Level tokens, (B, S, C).
            vit_layers: This block's span of ViT layers.
            geometry: Where tokens and levels lie.

        Returns:
            Both after the exchange, shapes kept.
        """
        # CLS and registers have no place in the image: injector and
        # extractors leave them out.
        num_prefix = geometry.num_prefix
        prefix, patches = tokens.tensor_split([num_prefix], dim=1)
        patches = self.injector(patches, levels, geometry)
        tokens = vit_layers(torch.cat((prefix, patches), dim=1))
        for extractor in self.extractors:
            levels = extractor(levels, tokens[:, num_prefix:], geometry)
        return tokens, levels
