"""ViTDet's simple feature pyramid over the maps of a model.

ViTDet (https://arxiv.org/abs/2203.16527), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2

from torch import Tensor, nn

from kpu_mm.structures import bilinear

STRIDES = (4, 8, 16, 32)


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        # (B, C, H, W) -> (B, H, W, C) and back
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class PyramidLevel(nn.Module):
    """A map of one stride, brought to another stride and width.

    ViTDet (https://arxiv.org/abs/2203.16527), section 3: each doubling is a
    2 x 2 transposed convolution that halves the channels, each halving a
    maximum over 2 x 2; then a 1 x 1 and a 3 x 3 convolution, each with norm.

    Args:
        in_channels: Channels of the map.
        out_channels: Channels of the level.
        steps: How often the resolution is doubled, or halved if negative.
    """

    def __init__(self, in_channels: int, out_channels: int, steps: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(steps):
            half = in_channels // 2
            # ViTDet has norm and GELU between two doublings only.
            if i:
                layers += [_ChannelNorm(in_channels), nn.GELU()]
            layers.append(nn.ConvTranspose2d(in_channels, half, 2, stride=2))
            in_channels = half
        # ceil_mode: no row or column of an odd map is lost
        layers += [nn.MaxPool2d(2, ceil_mode=True) for _ in range(-steps)]
        layers += [
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            _ChannelNorm(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            _ChannelNorm(out_channels),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Resample and project.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, C', H * 2^steps, W * 2^steps), sizes rounded up.
        """
        out: Tensor = self.layers(x)
        return out


class FeaturePyramid(nn.ModuleDict):
    """Levels at strides of 4 to 32, from one map or several.

    ViTDet (https://arxiv.org/abs/2203.16527), section 3: each level is made
    from the map of the closest stride, the finer one of two.

    Args:
        in_channels: Channels of each map.
        in_strides: Pixels of the image per cell of each map.
        out_channels: Channels of each level.
        indices: Which of strides 4, 8, 16 and 32.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[float],
        out_channels: int,
        indices: Sequence[int],
    ) -> None:
        super().__init__()
        # A level is whole steps of 2 away from its map, so that a patch of
        # 14 pixels counts as 16; forward resizes the map accordingly.
        self._strides = [2 ** round(log2(stride)) for stride in in_strides]
        for index in indices:
            i = self._closest(STRIDES[index])
            steps = round(log2(self._strides[i] / STRIDES[index]))
            self[str(index)] = PyramidLevel(in_channels[i], out_channels, steps)

    def _closest(self, stride: int) -> int:
        """Index of the map of the closest stride, the finer one of two."""
        distances = [(abs(log2(s / stride)), s) for s in self._strides]
        return distances.index(min(distances))

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Make the levels.

        Args:
            maps: Each (B, C_i, H_i, W_i).
            size: Height and width of the images.

        Returns:
            For each level (B, C, ceil(H / stride), ceil(W / stride)).
        """
        pyramid = []
        for index, level in self.items():
            stride = STRIDES[int(index)]
            i = self._closest(stride)
            # the map as it would be at its power of two
            out = level(bilinear(maps[i], _cells(size, self._strides[i])))
            # ceil(H / 16) rows doubled are ceil(H / 8) or one more
            rows, columns = _cells(size, stride)
            pyramid.append(out[..., :rows, :columns])
        return tuple(pyramid)


def _cells(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return ceil(size[0] / stride), ceil(size[1] / stride)
