"""One level of ViTDet's simple feature pyramid."""

from __future__ import annotations

from torch import Tensor, nn


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
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

    def __init__(
        self, in_channels: int, out_channels: int, steps: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(steps):
            half = in_channels // 2
            if i:
                layers += [_ChannelNorm(in_channels), nn.GELU()]
            layers.append(nn.ConvTranspose2d(in_channels, half, 2, stride=2))
            in_channels = half
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
