"""Denoising: noised ground truth -> extra queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mmengine.model import BaseModule
from torch import Tensor, nn

from .structures import DenoisingQueries, Target


class Noise(NamedTuple):
    """The random numbers of one step, T objects in the batch, G groups.

    Args:
        swap: Which labels change, (G, T) bool.
        labels: What they change to, (G, T) int64.
        boxes: Uniform in (-1, 1), (G, T, 4).
    """

    swap: Tensor
    labels: Tensor
    boxes: Tensor


class Denoising(BaseModule):
    """Queries that start from noised labels and boxes.

    Mask DINO (https://arxiv.org/abs/2206.02777), section 3.4; DN-DETR
    (https://arxiv.org/abs/2203.01305).

    Args:
        num_classes: Classes of the labels.
        embed_dims: Channels C.
        num_queries: Most queries D that are made; they are divided into
            groups that each hold every object once. Defaults to 100.
        noise_scale: Centres move by up to this share of half the size,
            sizes by up to this share of themselves, and half this share of
            the labels is redrawn. Defaults to 0.4.
    """

    def __init__(
        self,
        num_classes: int,
        embed_dims: int,
        num_queries: int = 100,
        noise_scale: float = 0.4,
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.noise_scale = noise_scale
        self.label_embedding = nn.Embedding(num_classes, embed_dims)

    def draw(self, targets: Sequence[Target], groups: int) -> Noise:
        """Draw the random numbers of one step."""
        raise NotImplementedError

    def forward(
        self,
        targets: Sequence[Target],
        num_matching: int,
        noise: Noise | None = None,
    ) -> DenoisingQueries | None:
        """Make the queries of one step.

        Args:
            targets: Objects of each image.
            num_matching: Matching queries N that follow in the decoder.
            noise: Random numbers, objects in the order of ``targets``; None
                draws them.

        Returns:
            None if no image has objects, or one has more than
            ``num_queries``.
        """
        raise NotImplementedError
