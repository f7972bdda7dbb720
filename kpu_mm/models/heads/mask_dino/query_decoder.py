"""Query decoder: queries and boxes, refined layer by layer."""

from __future__ import annotations

from mmdet.models.layers import (
    MLP,
    DeformableDetrTransformerDecoderLayer,
    coordinate_to_encoding,
    inverse_sigmoid,
)
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from .deformable import (
    ffn_cfg,
    full_precision,
    init_transformer,
    level_arguments,
)
from .structures import PixelFeatures


class QueryDecoder(BaseModule):
    """Deformable decoder with boxes as anchors that every layer refines.

    Mask DINO (https://arxiv.org/abs/2206.02777), DINO
    (https://arxiv.org/abs/2203.03605). Runs in float32 whatever autocast
    says.

    Args:
        embed_dims: Channels C.
        num_levels: Levels of the memory.
        num_layers: Layers. Defaults to 9.
        ffn_channels: Hidden channels of the feed-forward networks. Defaults
            to 2048.
        num_heads: Heads of the attentions. Defaults to 8.
        num_points: Sampling points per head and level. Defaults to 4.
    """

    def __init__(
        self,
        embed_dims: int,
        num_levels: int,
        num_layers: int = 9,
        ffn_channels: int = 2048,
        num_heads: int = 8,
        num_points: int = 4,
    ) -> None:
        super().__init__()
        attention = dict(
            embed_dims=embed_dims, num_heads=num_heads, batch_first=True
        )
        self.layers = ModuleList(
            DeformableDetrTransformerDecoderLayer(
                self_attn_cfg=dict(attention),
                cross_attn_cfg=dict(
                    attention,
                    num_levels=num_levels,
                    num_points=num_points,
                    dropout=0.0,
                ),
                ffn_cfg=ffn_cfg(embed_dims, ffn_channels),
            )
            for _ in range(num_layers)
        )
        self.ref_point_head = MLP(2 * embed_dims, embed_dims, embed_dims, 2)
        self.num_position_feats = embed_dims // 2

    def init_weights(self) -> None:
        """Initialise as the published models were."""
        init_transformer(self)

    def forward(
        self,
        content: Tensor,
        references: Tensor,
        features: PixelFeatures,
        box_head: nn.Module,
        blocked: Tensor | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Run all layers.

        Args:
            content: (B, N, C).
            references: Reference boxes (cx, cy, w, h) in [0, 1], (B, N, 4).
            features: The pixel decoder's.
            box_head: Queries (B, N, C) -> box offsets in logits, (B, N, 4).
            blocked: (N, N) bool, True where a query (row) may not look;
                None lets all see all.

        Returns:
            The output of every layer before the norm, each (B, N, C), and
            the boxes each layer started from, each (B, N, 4). These keep
            their gradient into the layer before, and no further.
        """
        levels = level_arguments(features.shapes, features.memory)
        states, starts = [], []
        start = references
        with full_precision(content):
            state = content.float()
            for layer in self.layers:
                starts.append(start)
                position = self.ref_point_head(
                    coordinate_to_encoding(references, self.num_position_feats)
                )
                state = layer(
                    state,
                    query_pos=position,
                    value=features.memory,
                    self_attn_mask=blocked,
                    reference_points=references[:, :, None],
                    **levels,
                )
                states.append(state)
                start = (
                    box_head(state) + inverse_sigmoid(references)
                ).sigmoid()
                references = start.detach()
        return states, starts
