"""Selected queries: the encoder's most promising cells."""

from __future__ import annotations

import torch
from mmdet.models.detectors import DeformableDETR
from mmdet.models.layers import inverse_sigmoid
from mmengine.model import BaseModule
from torch import nn

from kpu_mm.registry import MODELS

from .mask_to_box import BOX_INITS, mask_to_box
from .predictor import Predictor
from .structures import PixelFeatures, Queries


@MODELS.register_module()
class SelectedQueries(BaseModule):
    """Two-stage queries with boxes from the masks they predict.

    Mask DINO (https://arxiv.org/abs/2206.02777), section 3.5.

    Args:
        embed_dims: Channels C.
        num_queries: Queries N. Defaults to 300.
        box_init: Where reference boxes come from: 'no' (the box head),
            'bitmask' or 'mask2box' (the masks, see :func:`mask_to_box`).
            Defaults to 'bitmask'.

    Raises:
        ValueError: If ``box_init`` is not listed.
    """

    # It takes the two layers below from any `self`.
    encode_proposals = DeformableDETR.gen_encoder_output_proposals

    def __init__(
        self,
        embed_dims: int,
        num_queries: int = 300,
        box_init: str = 'bitmask',
    ) -> None:
        super().__init__()
        if box_init not in BOX_INITS:
            raise ValueError(
                f'box_init={box_init!r}: choose from {BOX_INITS}.'
            )
        self.num_queries = num_queries
        self.box_init = box_init
        self.memory_trans_fc = nn.Linear(embed_dims, embed_dims)
        self.memory_trans_norm = nn.LayerNorm(embed_dims)

    def forward(
        self, features: PixelFeatures, predictor: Predictor
    ) -> Queries:
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
                f'an image of {memory.shape[1]} cells cannot give '
                f'num_queries={self.num_queries}: use larger images or fewer '
                'queries.'
            )
        encoded, proposals = self.encode_proposals(memory, None, shapes)
        scores = predictor.cls(encoded).amax(-1)
        best = scores.topk(self.num_queries, dim=1).indices[..., None]
        # (B, S, C) -> (B, N, C)
        encoded = encoded.gather(1, best.expand(-1, -1, encoded.shape[-1]))
        proposals = proposals.gather(1, best.expand(-1, -1, 4))
        box_logits = predictor.box(encoded) + proposals
        selected = predictor.predict(encoded, box_logits.sigmoid())
        references = box_logits.detach()
        if self.box_init != 'no':
            with torch.no_grad():
                masks = selected.mask_logits(features.masks) > 0
            references = inverse_sigmoid(mask_to_box(masks, self.box_init))
        return Queries(encoded.detach(), references, selected)
