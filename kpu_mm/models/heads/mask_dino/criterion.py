"""Criterion: matched pairs -> losses."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .matcher import TermWeights
from .structures import (
    DenoisingQueries,
    HeadOutputs,
    Pairs,
    Predictions,
    Target,
)


class Criterion(nn.Module):
    """Five losses for each prediction set, all in float32.

    Mask DINO (https://arxiv.org/abs/2206.02777).

    Args:
        class_loss: :class:`FocalClasses` or :class:`SoftmaxClasses`.
        weights: Of the five terms, in matching and loss; None takes the
            paper's. Defaults to None.
        num_points: Points a mask is compared at. Defaults to 12544.
        oversample_ratio: Candidates drawn for each point. Defaults to 3.0.
        importance_sample_ratio: Share of the points that are the most
            uncertain candidates; the rest is uniform. Defaults to 0.75.
    """

    def __init__(
        self,
        class_loss: nn.Module,
        weights: TermWeights | None = None,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
    ) -> None:
        super().__init__()
        raise NotImplementedError

    def forward(
        self,
        outputs: HeadOutputs,
        targets: Sequence[Target],
        denoising: DenoisingQueries | None = None,
    ) -> dict[str, Tensor]:
        """All weighted losses of one step.

        Keys are 'loss_cls', 'loss_bbox', 'loss_iou', 'loss_mask' and
        'loss_dice' of the last layer; with the prefix 'd0.' of the initial
        prediction, 'd1.', ... of the layers before the last, 'enc.' of the
        selected cells; all but the last again after 'dn.' for denoising.

        Args:
            outputs: The head's.
            targets: Objects of each image.
            denoising: The queries that ``outputs.denoising`` came from.
        """
        raise NotImplementedError

    def draw_points(self, mask_logits: Tensor) -> Tensor:
        """Where to compare predicted masks with their objects.

        Args:
            mask_logits: (P, h, w).

        Returns:
            (P, num_points, 2) as (x, y) in [0, 1].
        """
        raise NotImplementedError

    def set_losses(
        self,
        predictions: Predictions,
        mask_features: Tensor,
        targets: Sequence[Target],
        pairs: Sequence[Pairs],
        normaliser: Tensor,
        groups: int = 1,
    ) -> dict[str, Tensor]:
        """The five weighted losses of one prediction set.

        Args:
            predictions: The set.
            mask_features: (B, C, h, w).
            targets: Objects of each image.
            pairs: Of each image.
            normaliser: What sums are divided by, a scalar tensor.
            groups: Pairs that every paired object has.
        """
        raise NotImplementedError
