"""Classes: what a model takes class logits for."""

from __future__ import annotations

from torch import Tensor, nn

from kpu_mm.registry import MODELS


@MODELS.register_module()
class FocalClasses(nn.Module):
    """One sigmoid for each class, trained by the focal loss.

    Focal loss (https://arxiv.org/abs/1708.02002).

    Args:
        num_classes: Classes K; there are as many outputs.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = self.num_outputs = num_classes

    def loss(
        self, logits: Tensor, labels: Tensor, normaliser: Tensor
    ) -> Tensor:
        """Focal loss, summed and divided.

        Args:
            logits: (B, N, K).
            labels: (B, N), ``num_classes`` for the background.
            normaliser: What the sum is divided by.
        """
        raise NotImplementedError

    def scores(self, logits: Tensor) -> Tensor:
        """Score of every class, (..., K) -> (..., K)."""
        return logits.sigmoid()


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

    def loss(
        self, logits: Tensor, labels: Tensor, normaliser: Tensor
    ) -> Tensor:
        """Weighted mean of the cross-entropy.

        Args:
            logits: (B, N, K + 1).
            labels: (B, N), ``num_classes`` for the background.
            normaliser: Not used: the mean has its own.
        """
        raise NotImplementedError

    def scores(self, logits: Tensor) -> Tensor:
        """Score of every class, (..., K + 1) -> (..., K)."""
        return logits.softmax(-1)[..., :-1]
