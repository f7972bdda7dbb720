"""Classes: what a model takes class logits for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.models.losses import FocalLoss
from torch import Tensor, nn

from kpu_mm.registry import MODELS


@MODELS.register_module()
class FocalClasses(nn.Module):
    """One sigmoid for each class, trained by the focal loss.

    Focal loss (https://arxiv.org/abs/1708.02002).

    Args:
        num_classes: Classes K; there are as many outputs.
        temperature: Of :meth:`exclusive_scores`. Defaults to 0.06.
    """

    def __init__(self, num_classes: int, temperature: float = 0.06) -> None:
        super().__init__()
        self.temperature = temperature
        self.num_classes = self.num_outputs = num_classes
        self.focal_loss = FocalLoss(use_sigmoid=True, gamma=2.0, alpha=0.25)

    def loss(
        self, logits: Tensor, labels: Tensor, normaliser: Tensor
    ) -> Tensor:
        """Focal loss, summed and divided.

        Args:
            logits: (B, N, K).
            labels: (B, N), ``num_classes`` for the background.
            normaliser: What the sum is divided by.
        """
        loss: Tensor = self.focal_loss(
            logits.flatten(0, 1), labels.flatten(), avg_factor=normaliser
        )
        return loss

    def scores(self, logits: Tensor) -> Tensor:
        """Score of every class.

        Args:
            logits: (..., K).
        """
        return logits.sigmoid()

    def exclusive_scores(self, logits: Tensor) -> Tensor:
        """Scores that sum to 1 and leave little to the second best.

        Args:
            logits: (..., K).
        """
        return (self.scores(logits) / self.temperature).softmax(-1)


@MODELS.register_module()
class SoftmaxClasses(nn.Module):
    """One softmax over classes and background.

    Args:
        num_classes: Classes K; there are K + 1 outputs.
        background_weight: Weight of the background in the loss. Defaults to
            0.1.
    """

    def __init__(
        self, num_classes: int, background_weight: float = 0.1
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_outputs = num_classes + 1
        weight = torch.ones(num_classes + 1)
        weight[-1] = background_weight
        self.weight: Tensor
        self.register_buffer('weight', weight, persistent=False)

    def loss(
        self, logits: Tensor, labels: Tensor, normaliser: Tensor
    ) -> Tensor:
        """Weighted mean of the cross-entropy.

        Args:
            logits: (B, N, K + 1).
            labels: (B, N), ``num_classes`` for the background.
            normaliser: Not used: the mean has its own.
        """
        del normaliser
        labels = labels.flatten()
        total = F.cross_entropy(
            logits.flatten(0, 1), labels, self.weight, reduction='sum'
        )
        # Without denoising queries there is nothing to average.
        return total / self.weight[labels].sum().clamp(min=1e-6)

    def scores(self, logits: Tensor) -> Tensor:
        """Score of every class, (..., K).

        Args:
            logits: (..., K + 1).
        """
        return logits.softmax(-1)[..., :-1]

    def exclusive_scores(self, logits: Tensor) -> Tensor:
        """The same: a softmax is exclusive already.

        Args:
            logits: (..., K + 1).
        """
        return self.scores(logits)
