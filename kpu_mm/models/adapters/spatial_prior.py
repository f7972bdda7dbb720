"""Spatial prior module: a convolutional stem that keeps fine detail."""

from __future__ import annotations

from typing import Any

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn


def _conv_norm_act(
    in_channels: int, out_channels: int, stride: int, norm_cfg: dict[str, Any]
) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        build_norm_layer(norm_cfg, out_channels)[1],
        nn.ReLU(inplace=True),
    ]


class SpatialPrior(nn.Module):
    """Image -> maps at strides 4, 8, 16 and 32.

    ViT-Adapter (https://arxiv.org/abs/2205.08534), section 3.2. Every map
    has ceil(H / stride) rows and ceil(W / stride) columns.

    Args:
        embed_dims: Channels of each map.
        inplanes: Channels of the stem; deeper stages have 2, 4 and 4 times
            as many.
        norm_cfg: Config of the norm layers.
    """

    def __init__(
        self, embed_dims: int, inplanes: int, norm_cfg: dict[str, Any]
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_conv_norm_act(3, inplanes, 2, norm_cfg),
            *_conv_norm_act(inplanes, inplanes, 1, norm_cfg),
            *_conv_norm_act(inplanes, inplanes, 1, norm_cfg),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        planes = (inplanes, 2 * inplanes, 4 * inplanes, 4 * inplanes)
        self.stages = nn.ModuleList(
            nn.Sequential(
                *_conv_norm_act(planes[i], planes[i + 1], 2, norm_cfg)
            )
            for i in range(3)
        )
        self.projections = nn.ModuleList(
            nn.Conv2d(channels, embed_dims, 1) for channels in planes
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps, each (B, C, H_l, W_l), fine first."""
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [
            projection(m)
            for projection, m in zip(self.projections, maps, strict=True)
        ]
