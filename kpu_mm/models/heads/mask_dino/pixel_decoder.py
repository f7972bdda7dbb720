"""Pixel decoder: backbone maps -> mask features and encoded memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
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
from ...layers.deform_attention import LevelShapes
from .deformable import full_precision, init_deformable, level_arguments
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
        raise NotImplementedError

    def forward(self, maps: Sequence[Tensor]) -> PixelFeatures:
        """Encode the backbone's maps.

        Args:
            maps: (B, C_i, H_i, W_i) at strides 4, 8, 16, ... .

        Raises:
            ValueError: If number, channels or sizes of the maps are not
                those that the constructor was told.
        """
        raise NotImplementedError
