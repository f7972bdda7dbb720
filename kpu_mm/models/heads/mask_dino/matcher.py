"""Matcher: predictions <-> ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .structures import Pairs, Predictions, Target


class TermWeights(NamedTuple):
    """Weights of the five terms, in costs and losses alike.

    Args:
        cls: Classification. Defaults to 4.0.
        bbox: L1 distance of boxes. Defaults to 5.0.
        iou: Generalised IoU of boxes. Defaults to 2.0.
        mask: Cross-entropy of masks. Defaults to 5.0.
        dice: Dice of masks. Defaults to 5.0.
    """

    cls: float = 4.0
    bbox: float = 5.0
    iou: float = 2.0
    mask: float = 5.0
    dice: float = 5.0


def match_costs(
    predictions: Predictions,
    mask_features: Tensor,
    target: Target,
    points: Tensor,
    weights: TermWeights,
) -> Tensor:
    """What it would cost to match each query with each object of one image.

    Args:
        predictions: L prediction sets of the image in place of a batch.
        mask_features: (C, h, w).
        target: The image's objects.
        points: Where masks are compared, (L, P, 2) as (x, y) in [0, 1].
        weights: Of the five terms.

    Returns:
        (L, N, M).
    """
    raise NotImplementedError


class HungarianMatcher:
    """One-to-one matching of least cost, for all prediction sets at once.

    DETR (https://arxiv.org/abs/2005.12872).

    Args:
        weights: Of the five cost terms.
        num_points: Points at which masks are compared. Defaults to 12544.
    """

    def __init__(
        self, weights: TermWeights, num_points: int = 12544
    ) -> None:
        self.weights = weights
        self.num_points = num_points

    def __call__(
        self,
        sets: Sequence[Predictions],
        mask_features: Tensor,
        targets: Sequence[Target],
        points: Tensor | None = None,
    ) -> list[list[Pairs]]:
        """Match every prediction set with every image's objects.

        Args:
            sets: L prediction sets.
            mask_features: (B, C, h, w).
            targets: Objects of each image.
            points: (L, B, P, 2) in [0, 1]; None draws them.

        Returns:
            For each set, the pairs of each image.
        """
        raise NotImplementedError
