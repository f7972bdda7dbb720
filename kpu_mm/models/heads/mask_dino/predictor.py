"""Predictor: the heads that every prediction set shares."""

from __future__ import annotations

from mmdet.models.layers import MLP, inverse_sigmoid
from mmengine.model import BaseModule
from torch import Tensor, nn

from .structures import Predictions


class Predictor(BaseModule):
    """Class, box and mask heads and the decoder's norm.

    Mask DINO (https://arxiv.org/abs/2206.02777). Encoder, initial
    prediction and all decoder layers use the same weights.

    Args:
        embed_dims: Channels of queries and mask features, C.
        num_outputs: Class outputs, K.
    """

    def __init__(self, embed_dims: int, num_outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dims)
        self.cls = nn.Linear(embed_dims, num_outputs)
        self.box = MLP(embed_dims, embed_dims, 4, 3)
        self.mask = MLP(embed_dims, embed_dims, embed_dims, 3)

    def init_weights(self) -> None:
        """Boxes start at their references; the rest keeps its default."""
        nn.init.zeros_(self.box.layers[-1].weight)
        nn.init.zeros_(self.box.layers[-1].bias)

    def predict(self, queries: Tensor, boxes: Tensor) -> Predictions:
        """Classify and mask queries whose boxes are known.

        Args:
            queries: (B, N, C), not normed: the norm is applied here.
            boxes: Their boxes, (B, N, 4).
        """
        normed = self.norm(queries)
        return Predictions(self.cls(normed), boxes, self.mask(normed))

    def refine(self, queries: Tensor, references: Tensor) -> Predictions:
        """Predict from a decoder layer's output.

        Class and mask see the norm twice, boxes once, as the weights that
        are published were trained.

        Args:
            queries: The layer's output, (B, N, C), not normed.
            references: The boxes that the layer before gave, (B, N, 4).
        """
        normed = self.norm(queries)
        boxes = (self.box(normed) + inverse_sigmoid(references)).sigmoid()
        return self.predict(normed, boxes)
