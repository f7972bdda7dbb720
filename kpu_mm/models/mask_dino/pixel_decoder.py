"""Pixel decoder: backbone maps -> mask features and encoded memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import DeformableDetrTransformerEncoder, SinePositionalEncoding
from mmengine.model import BaseModule, ModuleList, caffe2_xavier_init, xavier_init
from torch import Tensor, nn

from kpu_mm.registry import MODELS

from ..layers.deform_attention import LevelShapes, flatten_levels, split_levels

ORDERS = ('coarse_to_fine', 'fine_to_coarse')
GN = dict(type='GN', num_groups=32)


class PixelFeatures(NamedTuple):
    """Output of the pixel decoder.

    Args:
        masks: Mask features at stride 4, (B, C, h, w).
        memory: Encoded cells of all levels, (B, S, C), levels in the
            decoder's order, which is the encoder's reversed.
        shapes: (H_l, W_l) of each level in the same order.
    """

    masks: Tensor
    memory: Tensor
    shapes: LevelShapes


@MODELS.register_module()
class MaskDINOPixelDecoder(BaseModule):
    """Deformable encoder over the coarse maps, then one FPN step to stride 4.

    Mask DINO (https://arxiv.org/abs/2206.02777). Runs in float32 whatever
    the autocast. It takes no padding mask: padded cells are encoded like any
    other, as in the official code.

    Args:
        in_channels: Channels of the backbone's maps at strides 4, 8, 16
            ... . Defaults to (256, 512, 1024, 2048).
        embed_dims: Channels C of all outputs, a multiple of 32. Defaults to
            256.
        input_levels: How many of the maps, from the coarsest on, the encoder
            takes. Defaults to 3.
        extra_level: Whether it also takes a level of twice the last stride,
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
                f'input_levels={input_levels}: there are {len(in_channels)} maps, choose from 1 to '
                f'{len(in_channels)}.'
            )
        self.in_channels = tuple(in_channels)
        self.embed_dims = embed_dims
        self.input_levels = input_levels
        self.extra_level = extra_level
        self.order = order
        self.num_levels = input_levels + extra_level

        conv = partial(ConvModule, out_channels=embed_dims, norm_cfg=GN, act_cfg=None)
        # from fine to coarse
        convs = [
            conv(channels, kernel_size=1, bias=True)
            for channels in self.in_channels[-input_levels:]
        ]
        if extra_level:
            last = self.in_channels[-1]
            convs.append(conv(last, kernel_size=3, stride=2, padding=1, bias=True))
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
                ffn_cfg=dict(embed_dims=embed_dims, feedforward_channels=ffn_channels),
            ),
        )
        self.lateral_conv = conv(self.in_channels[0], kernel_size=1)
        self.output_conv = ConvModule(embed_dims, embed_dims, 3, padding=1, norm_cfg=GN)
        self.mask_feature = nn.Conv2d(embed_dims, embed_dims, 1)

    def init_weights(self) -> None:
        """Initialise as the published models were."""
        for conv in self.input_convs:
            xavier_init(conv.conv, distribution='uniform')
        for layer in (self.lateral_conv.conv, self.output_conv.conv, self.mask_feature):
            caffe2_xavier_init(layer)
        nn.init.normal_(self.level_encoding.weight)
        init_transformer(self.encoder)

    def forward(self, maps: Sequence[Tensor]) -> PixelFeatures:
        """Encode the backbone's maps.

        Args:
            maps: (B, C_i, H_i, W_i) at strides 4, 8, 16, ... .

        Raises:
            ValueError: If number, channels or sizes of the maps are not
                those of the constructor.
        """
        _check_maps(maps, self.in_channels)
        with torch.autocast(maps[0].device.type, enabled=False):
            maps = [level.float() for level in maps]
            tokens, shapes = self._encode(maps)
            # (B, S, C) -> (B, C, H_l, W_l) for each level
            levels = split_levels(tokens, shapes)
            finest = self._ordered(levels)[0]
            lateral = self.lateral_conv(maps[0])
            resized = F.interpolate(finest, lateral.shape[-2:], mode='bilinear')
            masks = self.mask_feature(self.output_conv(lateral + resized))
            # The decoder takes the levels in the reversed order, as
            # published; `SelectedQueries` depends on it.
            memory = flatten_levels(levels[::-1])
        return PixelFeatures(masks, memory, shapes[::-1])

    def _encode(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Tokens (B, S, C) and sizes of all levels, encoder order."""
        sources = list(maps[-self.input_levels :])
        if self.extra_level:
            sources.append(maps[-1])
        levels = [
            conv(source)
            for conv, source in zip(self.input_convs, self._ordered(sources), strict=True)
        ]
        shapes = [(level.shape[-2], level.shape[-1]) for level in levels]
        # The sine code needs a padding mask: zeros (1, H_l, W_l), no padding.
        positions = [
            # (1, C, H_l, W_l) + (C, 1, 1)
            self.position(level.new_zeros(1, *shape)) + code[:, None, None]
            for level, shape, code in zip(levels, shapes, self.level_encoding.weight, strict=True)
        ]
        tokens = flatten_levels(levels)  # (B, C, H_l, W_l) each -> (B, S, C)
        encoded = self.encoder(
            query=tokens,
            query_pos=flatten_levels(positions),
            key_padding_mask=None,
            **level_arguments(shapes, tokens),
        )
        return encoded, shapes

    def _ordered(self, levels: list[Any]) -> list[Any]:
        """From fine to coarse -> in the encoder's order, and back."""
        return levels[::-1] if self.order == ORDERS[0] else levels


def _check_maps(maps: Sequence[Tensor], in_channels: Sequence[int]) -> None:
    channels = [level.shape[1] for level in maps]
    if channels != list(in_channels):
        raise ValueError(
            f'the backbone gives {len(maps)} maps of {channels} channels, '
            f'the pixel decoder has in_channels={list(in_channels)}: set '
            "the backbone's `out_indices` or the decoder's `in_channels`."
        )
    sizes = [tuple(level.shape[-2:]) for level in maps]
    for fine, coarse in pairwise(sizes):
        # Backbones round odd sizes up or down.
        if any(abs(a - 2 * b) > 1 for a, b in zip(fine, coarse, strict=True)):
            raise ValueError(
                f'the backbone gives maps of sizes {sizes}: each must be '
                'half the one before, as at strides 4, 8, 16 and 32.'
            )


def level_arguments(shapes: LevelShapes, like: Tensor) -> dict[str, Tensor]:
    """Level sizes as MMDetection's layers take them.

    Args:
        shapes: (H_l, W_l) of each level.
        like: A tensor (B, ...) of the same batch and device.

    Returns:
        ``spatial_shapes`` (L, 2), ``level_start_index`` (L,) and
        ``valid_ratios`` (B, L, 2), all 1: padding counts as image.
    """
    spatial_shapes = torch.tensor(shapes, device=like.device)
    sizes = spatial_shapes.prod(1)
    return dict(
        spatial_shapes=spatial_shapes,
        level_start_index=sizes.cumsum(0) - sizes,
        valid_ratios=torch.ones(like.shape[0], len(shapes), 2, device=like.device),
    )


def init_transformer(stack: nn.Module) -> None:
    """Xavier-uniform matrices, deformable attention in its usual way.

    Args:
        stack: Encoder or decoder.
    """
    for parameter in stack.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    # after the loop, which has overwritten the offsets' directions
    for module in stack.modules():
        if isinstance(module, MultiScaleDeformableAttention):
            module.init_weights()
