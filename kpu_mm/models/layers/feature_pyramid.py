"""ViTDet's simple feature pyramid over the maps of a model."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2

from torch import Tensor, nn

from kpu_mm.structures import bilinear

from .pyramid_level import PyramidLevel

STRIDES = (4, 8, 16, 32)


class FeaturePyramid(nn.ModuleDict):
    """Levels at strides of 4 to 32, from one map or several.

    ViTDet (https://arxiv.org/abs/2203.16527), section 3: each level is made
    from the map of the closest stride, the finer one of two.

    Args:
        in_channels: Channels of each map.
        in_strides: Pixels of the image per cell of each map. Each counts as
            the power of two closest to it, 14 as 16.
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
        self._strides = [2 ** round(log2(stride)) for stride in in_strides]
        for index in indices:
            i = self._closest(STRIDES[index])
            steps = round(log2(self._strides[i] / STRIDES[index]))
            self[str(index)] = PyramidLevel(
                in_channels[i], out_channels, steps
            )

    def _closest(self, stride: int) -> int:
        return min(
            range(len(self._strides)),
            key=lambda i: (
                abs(log2(self._strides[i] / stride)),
                self._strides[i],
            ),
        )

    def forward(
        self, maps: Sequence[Tensor], size: tuple[int, int]
    ) -> tuple[Tensor, ...]:
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
            out = level(bilinear(maps[i], _cells(size, self._strides[i])))
            # ceil(H / 16) rows doubled are ceil(H / 8) or one more
            rows, columns = _cells(size, stride)
            pyramid.append(out[..., :rows, :columns])
        return tuple(pyramid)


def _cells(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return ceil(size[0] / stride), ceil(size[1] / stride)
