"""What the encoder and the decoder share around MMDetection's layers."""

from __future__ import annotations

from typing import Any

import torch
from mmcv.ops import MultiScaleDeformableAttention
from torch import Tensor, nn

from ...layers.deform_attention import LevelShapes


def full_precision(like: Tensor) -> torch.autocast:
    """A context without autocast on the tensor's device."""
    return torch.autocast(like.device.type, enabled=False)


def ffn_cfg(embed_dims: int, channels: int) -> dict[str, Any]:
    """Config of a feed-forward network without dropout.

    Args:
        embed_dims: Channels in and out.
        channels: Hidden channels.
    """
    return dict(
        embed_dims=embed_dims,
        feedforward_channels=channels,
        num_fcs=2,
        ffn_drop=0.0,
        act_cfg=dict(type='ReLU', inplace=True),
    )


def level_arguments(shapes: LevelShapes, like: Tensor) -> dict[str, Tensor]:
    """Level sizes as MMDetection's layers take them.

    Args:
        shapes: (H_l, W_l) of each level.
        like: A tensor (B, ...) of the same batch and device.

    Returns:
        ``spatial_shapes`` (L, 2), ``level_start_index`` (L,) and
        ``valid_ratios`` (B, L, 2), all 1: nothing is padding here.
    """
    spatial_shapes = torch.tensor(shapes, device=like.device)
    sizes = spatial_shapes.prod(1)
    return dict(
        spatial_shapes=spatial_shapes,
        level_start_index=sizes.cumsum(0) - sizes,
        valid_ratios=torch.ones(
            like.shape[0], len(shapes), 2, device=like.device
        ),
    )


def init_transformer(stack: nn.Module) -> None:
    """Xavier-uniform matrices, deformable attention in its usual way.

    Args:
        stack: Encoder or decoder.
    """
    for parameter in stack.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for module in stack.modules():
        if isinstance(module, MultiScaleDeformableAttention):
            module.init_weights()
