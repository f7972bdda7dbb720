"""Feed-forward network with a depth-wise convolution over each level."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .deform_attention import LevelShapes


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
        self.dwconv = nn.Conv2d(
            hidden_dims, hidden_dims, 3, padding=1, groups=hidden_dims
        )
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dims, embed_dims)

    def forward(self, tokens: Tensor, level_shapes: LevelShapes) -> Tensor:
        """Map level tokens (B, S, C) -> (B, S, C).

        Args:
            tokens: Tokens of all levels, one after another, row-major.
            level_shapes: (H_l, W_l) of each level, S = sum of H_l * W_l.
        """
        hidden = self.fc1(tokens).transpose(1, 2)  # (B, C', S)
        levels = hidden.split([h * w for h, w in level_shapes], dim=2)
        mixed = [
            self.dwconv(level.unflatten(2, (height, width))).flatten(2)
            for level, (height, width) in zip(
                levels, level_shapes, strict=True
            )
        ]
        hidden = torch.cat(mixed, dim=2).transpose(1, 2)
        out: Tensor = self.fc2(self.act(hidden))
        return out
