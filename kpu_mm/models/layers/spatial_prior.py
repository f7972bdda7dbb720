"""The convolutional branch of ViT-Adapter, from image to pyramid.

ViT-Adapter (https://arxiv.org/abs/2205.08534).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from kpu_mm.structures import bilinear

from .deform_attention import DeformableAttention


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

    def __init__(self, embed_dims: int, inplanes: int, norm_cfg: dict[str, Any]) -> None:
        super().__init__()

        def conv(ins: int, outs: int, stride: int) -> list[nn.Module]:
            return [
                nn.Conv2d(ins, outs, 3, stride, padding=1, bias=False),
                build_norm_layer(norm_cfg, outs)[1],
                nn.ReLU(inplace=True),
            ]

        self.stem = nn.Sequential(
            *conv(3, inplanes, 2),
            *conv(inplanes, inplanes, 1),
            *conv(inplanes, inplanes, 1),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        # channels at strides 4, 8, 16 and 32
        planes = (inplanes, 2 * inplanes, 4 * inplanes, 4 * inplanes)
        self.stages = nn.ModuleList(
            nn.Sequential(*conv(planes[i], planes[i + 1], 2)) for i in range(3)
        )
        self.projections = nn.ModuleList(nn.Conv2d(channels, embed_dims, 1) for channels in planes)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> four maps, each (B, C, H_l, W_l), fine first."""
        maps = [self.stem(images)]  # two halvings: stride 4
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [projection(m) for projection, m in zip(self.projections, maps, strict=True)]


def merge_levels(
    norms: nn.ModuleList, levels: Sequence[Tensor], vit_maps: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Add the ViT's own maps, resized to each level, and normalise.

    Args:
        norms: One norm layer for each of the four levels.
        levels: Four levels, (B, C, H_i, W_i).
        vit_maps: The map after each interaction block, (B, C, H, W).

    Returns:
        Four maps, (B, C, H_i, W_i).
    """
    last = len(vit_maps) - 1
    merged = []
    for i, (norm, level) in enumerate(zip(norms, levels, strict=True)):
        # Level i of 4 takes the map after block i of K = 4.
        vit_map = vit_maps[round(i * last / 3)]
        merged.append(norm(level + bilinear(vit_map, level.shape[-2:])))
    return tuple(merged)


def init_adapter(modules: Iterable[nn.Module]) -> None:
    """Set initial values as ViT-Adapter's code does.

    See https://arxiv.org/abs/2205.08534. Norm layers keep theirs.

    Args:
        modules: Every module of the adapter, inner ones included.
    """
    modules = list(modules)
    for module in modules:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            height, width = module.kernel_size
            # He initialisation over the outgoing connections
            fan_out = height * width * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # Last: an attention has its own values for the linear layers in it.
    for module in modules:
        if isinstance(module, DeformableAttention):
            module.reset_parameters()
