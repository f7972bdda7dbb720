"""Pixel decoder: backbone maps -> mask features and encoded memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet.models.layers import (
    DeformableDetrTransformerEncoder,
    SinePositionalEncoding,
)
from mmengine.model import (
    BaseModule,
    ModuleList,
    caffe2_xavier_init,
    xavier_init,
)
from torch import Tensor, nn

from kpu_mm.registry import MODELS

from ...adapters import flatten_levels, split_levels
from .deformable import (
    ffn_cfg,
    full_precision,
    init_transformer,
    level_arguments,
)
from .structures import PixelFeatures

ORDERS = ('coarse_to_fine', 'fine_to_coarse')
GN = dict(type='GN', num_groups=32)


@MODELS.register_module()
class MaskDINOPixelDecoder(BaseModule):
    """Deformable encoder over the coarse maps, then one FPN step to stride 4.

    Mask DINO (https://arxiv.org/abs/2206.02777). Runs in float32 whatever
    autocast says. Knows no padding: padded cells are cells like any other.

    Args:
        in_channels: Channels of the backbone's maps at strides 4, 8, 16
            ... . Defaults to (256, 512, 1024, 2048).
        embed_dims: Channels C of everything that comes out, a multiple of
            32. Defaults to 256.
        input_levels: How many of the maps, the coarsest, the encoder sees.
            Defaults to 3.
        extra_level: Whether it also sees a level of twice the last stride,
            a convolution of the last map. Defaults to False.
        order: Order of the encoder's levels, 'coarse_to_fine' or
            'fine_to_coarse'. Defaults to 'coarse_to_fine'.
        num_layers: Encoder layers. Defaults to 6.
        ffn_channels: Hidden channels of their feed-forward networks.
            Defaults to 1024.
        num_heads: Heads of their attentions. Defaults to 8.
        num_points: Sampling points per head and level. Defaults to 4.

    Raises:
        ValueError: If an option has a value that is not listed.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024, 2048),
        embed_dims: int = 256,
        input_levels: int = 3,
        extra_level: bool = False,
        order: str = 'coarse_to_fine',
        num_layers: int = 6,
        ffn_channels: int = 1024,
        num_heads: int = 8,
        num_points: int = 4,
    ) -> None:
        super().__init__()
        if order not in ORDERS:
            raise ValueError(f'order={order!r}: choose from {ORDERS}.')
        if not 1 <= input_levels <= len(in_channels):
            raise ValueError(
                f'input_levels={input_levels}: there are '
                f'{len(in_channels)} maps, choose from 1 to '
                f'{len(in_channels)}.'
            )
        self.in_channels = tuple(in_channels)
        self.embed_dims = embed_dims
        self.input_levels = input_levels
        self.extra_level = extra_level
        self.order = order
        self.num_levels = input_levels + extra_level

        # from fine to coarse
        convs = [
            ConvModule(
                channels, embed_dims, 1, bias=True, norm_cfg=GN, act_cfg=None
            )
            for channels in self.in_channels[-input_levels:]
        ]
        if extra_level:
            convs.append(
                ConvModule(
                    self.in_channels[-1],
                    embed_dims,
                    3,
                    stride=2,
                    padding=1,
                    bias=True,
                    norm_cfg=GN,
                    act_cfg=None,
                )
            )
        self.input_convs = ModuleList(self._ordered(convs))
        self.level_encoding = nn.Embedding(self.num_levels, embed_dims)
        self.position = SinePositionalEncoding(embed_dims // 2, normalize=True)
        self.encoder = DeformableDetrTransformerEncoder(
            num_layers,
            dict(
                self_attn_cfg=dict(
                    embed_dims=embed_dims,
                    num_heads=num_heads,
                    num_levels=self.num_levels,
                    num_points=num_points,
                    dropout=0.0,
                    batch_first=True,
                ),
                ffn_cfg=ffn_cfg(embed_dims, ffn_channels),
            ),
        )
        self.lateral_conv = ConvModule(
            self.in_channels[0], embed_dims, 1, norm_cfg=GN, act_cfg=None
        )
        self.output_conv = ConvModule(
            embed_dims, embed_dims, 3, padding=1, norm_cfg=GN
        )
        self.mask_feature = nn.Conv2d(embed_dims, embed_dims, 1)

    def forward(self, maps: Sequence[Tensor]) -> PixelFeatures:
        """Encode the backbone's maps.

        Args:
            maps: (B, C_i, H_i, W_i) at strides 4, 8, 16, ... .

        Raises:
            ValueError: If number, channels or sizes of the maps are not
                those that the constructor was told.
        """
        check_maps(maps, self.in_channels)
        with full_precision(maps[0]):
            maps = [level.float() for level in maps]
            tokens, shapes = self._encode(maps)
            levels = split_levels(tokens, shapes)
            finest = levels[-1 if self.order == ORDERS[0] else 0]
            lateral = self.lateral_conv(maps[0])
            resized = F.interpolate(
                finest, lateral.shape[-2:], mode='bilinear'
            )
            masks = self.mask_feature(self.output_conv(lateral + resized))
            memory = flatten_levels(levels[::-1])
        return PixelFeatures(masks, memory, shapes[::-1])

    def _encode(
        self, maps: Sequence[Tensor]
    ) -> tuple[Tensor, list[tuple[int, int]]]:
        """Tokens (B, S, C) and sizes of all levels, encoder order."""
        sources = list(maps[-self.input_levels :])
        if self.extra_level:
            sources.append(maps[-1])
        levels = [
            conv(source)
            for conv, source in zip(
                self.input_convs, self._ordered(sources), strict=True
            )
        ]
        shapes = [(level.shape[-2], level.shape[-1]) for level in levels]
        positions = [
            self.position(level.new_zeros(1, *shape)) + code[:, None, None]
            for level, shape, code in zip(
                levels, shapes, self.level_encoding.weight, strict=True
            )
        ]
        tokens = flatten_levels(levels)
        encoded = self.encoder(
            query=tokens,
            query_pos=flatten_levels(positions),
            key_padding_mask=None,
            **level_arguments(shapes, tokens),
        )
        return encoded, shapes

    def _ordered(self, levels: list[Any]) -> list[Any]:
        """From fine to coarse -> in the encoder's order."""
        return levels[::-1] if self.order == ORDERS[0] else levels

    def init_weights(self) -> None:
        """Initialise as the published models were."""
        for conv in self.input_convs:
            xavier_init(conv.conv, distribution='uniform')
        for layer in (
            self.lateral_conv.conv,
            self.output_conv.conv,
            self.mask_feature,
        ):
            caffe2_xavier_init(layer)
        nn.init.normal_(self.level_encoding.weight)
        init_transformer(self.encoder)


def check_maps(maps: Sequence[Tensor], in_channels: Sequence[int]) -> None:
    """Refuse maps that are not what the model was configured for.

    Args:
        maps: (B, C_i, H_i, W_i), each of half the size of the one before.
        in_channels: The C_i that were configured.

    Raises:
        ValueError: If number, channels or sizes differ.
    """
    channels = [level.shape[1] for level in maps]
    if channels != list(in_channels):
        raise ValueError(
            f'the backbone gives {len(maps)} maps of {channels} channels, '
            f'the pixel decoder has in_channels={list(in_channels)}: set '
            "the backbone's `out_indices` or the decoder's `in_channels`."
        )
    sizes = [tuple(level.shape[-2:]) for level in maps]
    for fine, coarse in pairwise(sizes):
        if any(abs(a - 2 * b) > 1 for a, b in zip(fine, coarse, strict=True)):
            raise ValueError(
                f'the backbone gives maps of sizes {sizes}: each must be '
                'half the one before, as at strides 4, 8, 16 and 32.'
            )
