"""Extractor: ViT tokens -> level tokens."""

from __future__ import annotations

from typing import Any

from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from ..layers import ConvFFN, DeformableAttention
from ..layers.deform_attention import LevelShapes


class Extractor(nn.Module):
    """c + attention(norm(c), norm(x)), then c + FFN(norm(c)).

    ViT-Adapter (https://arxiv.org/abs/2205.08534), equations 2 and 3.

    Args:
        embed_dims: Channels.
        attention: Arguments of :class:`DeformableAttention` besides
            ``embed_dims``.
        ffn_ratio: Hidden channels of the feed-forward network over
            ``embed_dims``. Defaults to 0.25.
        drop_path: Probability of dropping the feed-forward branch, per
            image. Defaults to 0.0.
    """

    def __init__(
        self,
        embed_dims: int,
        attention: dict[str, Any],
        ffn_ratio: float = 0.25,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.feat_norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.attn = DeformableAttention(embed_dims, **attention)
        self.ffn_norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.ffn = ConvFFN(embed_dims, int(embed_dims * ffn_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        levels: Tensor,
        level_points: Tensor,
        level_shapes: LevelShapes,
        tokens: Tensor,
        grid: tuple[int, int],
    ) -> Tensor:
        """Give level tokens what the ViT knows.

        Args:
            levels: Level tokens, (B, S, C).
            level_points: Their centres, (S, 2).
            level_shapes: (H_l, W_l) of each level.
            tokens: ViT patch tokens, (B, N, C).
            grid: Rows and columns of the ViT's patches, N = rows * columns.

        Returns:
            (B, S, C).
        """
        levels = levels + self.attn(
            self.query_norm(levels),
            level_points,
            self.feat_norm(tokens),
            [grid],
        )
        ffn = self.ffn(self.ffn_norm(levels), level_shapes)
        out: Tensor = levels + self.drop_path(ffn)
        return out
