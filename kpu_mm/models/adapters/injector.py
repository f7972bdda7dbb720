"""Injector: level tokens -> ViT tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..layers import DeformableAttention
from ..layers.deform_attention import LevelShapes


class Injector(nn.Module):
    """x + gamma * attention(norm(x), norm(levels)).

    ViT-Adapter (https://arxiv.org/abs/2205.08534), equation 1. At
    ``init_gamma = 0`` the ViT tokens pass unchanged.

    Args:
        embed_dims: Channels.
        attention: Arguments of :class:`DeformableAttention` besides
            ``embed_dims``.
        init_gamma: Initial value of gamma. Defaults to 0.0.
    """

    def __init__(
        self,
        embed_dims: int,
        attention: dict[str, Any],
        init_gamma: float = 0.0,
    ) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.feat_norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.attn = DeformableAttention(embed_dims, **attention)
        self.gamma = nn.Parameter(torch.full((embed_dims,), init_gamma))

    def forward(
        self,
        tokens: Tensor,
        reference_points: Tensor,
        levels: Tensor,
        level_shapes: LevelShapes,
    ) -> Tensor:
        """Give ViT tokens what the levels know.

        Args:
            tokens: ViT patch tokens, (B, N, C).
            reference_points: Their centres, (N, 2).
            levels: Level tokens, (B, S, C).
            level_shapes: (H_l, W_l) of each level.

        Returns:
            (B, N, C).
        """
        injected = self.attn(
            self.query_norm(tokens),
            reference_points,
            self.feat_norm(levels),
            level_shapes,
        )
        return tokens + self.gamma * injected
