"""Query decoder: where queries start, and how layers refine them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmdet.models.detectors import DeformableDETR
from mmdet.models.layers import (
    MLP,
    DeformableDetrTransformerDecoderLayer,
    coordinate_to_encoding,
    inverse_sigmoid,
)
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from kpu_mm.registry import MODELS

from .pixel_decoder import PixelFeatures, init_transformer, level_arguments
from .predictor import Predictions, Predictor
from .targets import mask_to_box

BOX_INITS = ('no', 'bitmask', 'mask2box')


class Queries(NamedTuple):
    """Input of the decoder.

    Args:
        content: (B, N, C).
        references: Logits of the reference boxes (cx, cy, w, h), (B, N, 4).
        selected: The encoder's own predictions of these queries; None for
            learned queries.
    """

    content: Tensor
    references: Tensor
    selected: Predictions | None = None


@MODELS.register_module()
class LearnedQueries(BaseModule):
    """Content and boxes of queries as parameters, the same for every image.

    Mask DINO (https://arxiv.org/abs/2206.02777), semantic segmentation.

    Args:
        embed_dims: Channels C.
        num_queries: Queries N. Defaults to 100.
    """

    def __init__(self, embed_dims: int, num_queries: int = 100) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.content_embedding = nn.Embedding(num_queries, embed_dims)
        self.box_embedding = nn.Embedding(num_queries, 4)

    def forward(self, features: PixelFeatures, predictor: Predictor) -> Queries:
        """Repeat the queries for every image.

        Args:
            features: The pixel decoder's, for the batch size.
            predictor: Not used: nothing is selected.
        """
        del predictor
        batch = features.memory.shape[0]
        # (N, C) -> (B, N, C), (N, 4) -> (B, N, 4)
        return Queries(
            self.content_embedding.weight.expand(batch, -1, -1),
            self.box_embedding.weight.expand(batch, -1, -1),
        )


@MODELS.register_module()
class SelectedQueries(BaseModule):
    """Two-stage queries: the encoder's best cells, with boxes from masks.

    Mask DINO (https://arxiv.org/abs/2206.02777), section 3.5. The sides of
    proposals double from each level of the memory to the next, whatever the
    levels' order: from 'fine_to_coarse' pixel decoders the finest cells
    propose the largest boxes, as in the published models.

    Args:
        embed_dims: Channels C.
        num_queries: Queries N. Defaults to 300.
        box_init: Where reference boxes come from: 'no' (the box head),
            'bitmask' or 'mask2box' (the masks, see :func:`mask_to_box`).
            Defaults to 'bitmask'.

    Raises:
        ValueError: If ``box_init`` is not listed.
    """

    # Borrowed unbound: it only uses `memory_trans_fc` and
    # `memory_trans_norm` of its `self`.
    encode_proposals = DeformableDETR.gen_encoder_output_proposals

    def __init__(self, embed_dims: int, num_queries: int = 300, box_init: str = 'bitmask') -> None:
        super().__init__()
        if box_init not in BOX_INITS:
            raise ValueError(f'box_init={box_init!r}: choose from {BOX_INITS}.')
        self.num_queries = num_queries
        self.box_init = box_init
        self.memory_trans_fc = nn.Linear(embed_dims, embed_dims)
        self.memory_trans_norm = nn.LayerNorm(embed_dims)

    def forward(self, features: PixelFeatures, predictor: Predictor) -> Queries:
        """Select the best cells of each image.

        Args:
            features: The pixel decoder's.
            predictor: The shared heads.

        Raises:
            ValueError: If there are fewer cells than queries.
        """
        memory, shapes = features.memory, features.shapes
        if memory.shape[1] < self.num_queries:
            raise ValueError(
                f'an image of {memory.shape[1]} cells cannot give num_queries={self.num_queries}: '
                'use larger images or fewer queries.'
            )
        encoded, proposals = self.encode_proposals(memory, None, shapes)
        # Selection classifies without the decoder's norm, as published.
        scores = predictor.cls(encoded).amax(-1)
        best = scores.topk(self.num_queries, dim=1).indices[..., None]
        # (B, S, C) -> (B, N, C), (B, S, 4) -> (B, N, 4)
        encoded = encoded.gather(1, best.expand(-1, -1, encoded.shape[-1]))
        proposals = proposals.gather(1, best.expand(-1, -1, 4))
        box_logits = predictor.box(encoded) + proposals
        selected = predictor.predict(encoded, box_logits.sigmoid())
        references = box_logits.detach()
        if self.box_init != 'no':
            with torch.no_grad():
                masks = selected.mask_logits(features.masks) > 0
            references = inverse_sigmoid(mask_to_box(masks, self.box_init))
        # Detached: only the losses of `selected` train the selection.
        return Queries(encoded.detach(), references, selected)


class QueryDecoder(BaseModule):
    """Deformable decoder with boxes as anchors that every layer refines.

    Mask DINO (https://arxiv.org/abs/2206.02777), DINO
    (https://arxiv.org/abs/2203.03605). Runs in float32 whatever the
    autocast.

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
        attention = dict(embed_dims=embed_dims, num_heads=num_heads, batch_first=True)
        self.layers = ModuleList(
            DeformableDetrTransformerDecoderLayer(
                self_attn_cfg=dict(attention),
                cross_attn_cfg=dict(
                    attention, num_levels=num_levels, num_points=num_points, dropout=0.0
                ),
                ffn_cfg=dict(embed_dims=embed_dims, feedforward_channels=ffn_channels),
            )
            for _ in range(num_layers)
        )
        # Codes of cx, cy, w and h, each of C / 2 channels, side by side.
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
            blocked: (N, N) bool, True where a query (row) does not attend
                to another (column); None blocks nothing.

        Returns:
            The output of every layer before the norm, each (B, N, C), and
            the boxes each layer started from, each (B, N, 4). These keep
            their gradient into the layer before, and no further.
        """
        levels = level_arguments(features.shapes, features.memory)
        states, starts = [], []
        start = references
        with torch.autocast(content.device.type, enabled=False):
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
                    # (B, N, 4) -> (B, N, 1, 4): the same for all levels
                    reference_points=references[:, :, None],
                    **levels,
                )
                states.append(state)
                start = (box_head(state) + inverse_sigmoid(references)).sigmoid()
                # DINO's "look forward twice": the next layer attends at
                # detached boxes, but its box loss trains this layer's too.
                references = start.detach()
        return states, starts
