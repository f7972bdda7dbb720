"""Learned queries: the same for every image."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import nn

from kpu_mm.registry import MODELS

from .predictor import Predictor
from .structures import PixelFeatures, Queries


@MODELS.register_module()
class LearnedQueries(BaseModule):
    """Content and boxes of queries as parameters.

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

    def forward(
        self, features: PixelFeatures, predictor: Predictor
    ) -> Queries:
        """Give every image the same queries.

        Args:
            features: The pixel decoder's, for the batch size.
            predictor: Not asked: nothing is selected.
        """
        del predictor
        batch = features.memory.shape[0]
        return Queries(
            self.content_embedding.weight.expand(batch, -1, -1),
            self.box_embedding.weight.expand(batch, -1, -1),
        )
