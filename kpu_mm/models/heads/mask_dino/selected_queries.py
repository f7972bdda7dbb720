"""Selected queries: the encoder's most promising cells."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import nn

from kpu_mm.registry import MODELS

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

    def __init__(
        self,
        embed_dims: int,
        num_queries: int = 300,
        box_init: str = 'bitmask',
    ) -> None:
        super().__init__()
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
        raise NotImplementedError
