"""Prediction heads: queries -> classes, boxes and masks."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmdet.models.layers import MLP, inverse_sigmoid
from mmdet.models.losses import FocalLoss
from mmengine.model import BaseModule
from torch import Tensor, nn

from kpu_mm.registry import MODELS


class Predictions(NamedTuple):
    """One prediction set.

    Masks stay factorised, because the losses need only few of their pixels.

    Args:
        logits: Class logits, (B, N, K).
        boxes: (cx, cy, w, h) over the canvas, (B, N, 4).
        mask_queries: (B, N, C); their dot products with the mask features
            are the mask logits.
    """

    logits: Tensor
    boxes: Tensor
    mask_queries: Tensor

    def mask_logits(self, mask_features: Tensor) -> Tensor:
        """Render the masks of all queries.

        Args:
            mask_features: (B, C, h, w).

        Returns:
            (B, N, h, w).
        """
        return torch.einsum('bnc,bchw->bnhw', self.mask_queries, mask_features)


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
            queries: (B, N, C), before the norm.
            boxes: Their boxes, (B, N, 4).
        """
        normed = self.norm(queries)
        return Predictions(self.cls(normed), boxes, self.mask(normed))

    def refine(self, queries: Tensor, references: Tensor) -> Predictions:
        """Predict from a decoder layer's output.

        Args:
            queries: The layer's output, (B, N, C), before the norm.
            references: The boxes from the layer before, (B, N, 4).
        """
        # `predict` applies the norm a second time for class and mask. This
        # looks like a mistake, but the published weights were trained so.
        normed = self.norm(queries)
        boxes = (self.box(normed) + inverse_sigmoid(references)).sigmoid()
        return self.predict(normed, boxes)


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

    def loss(self, logits: Tensor, labels: Tensor, normaliser: Tensor) -> Tensor:
        """Focal loss, summed and divided.

        Args:
            logits: (B, N, K).
            labels: (B, N), ``num_classes`` for the background.
            normaliser: The divisor of the sum.
        """
        if not logits.numel():  # mmcv's kernel on the GPU takes no empty batch
            return logits.sum()
        # (B, N, K) -> (B * N, K), (B, N) -> (B * N,)
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
        """Scores that sum to 1 and are sharply peaked.

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

    def __init__(self, num_classes: int, background_weight: float = 0.1) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_outputs = num_classes + 1
        weight = torch.ones(num_classes + 1)
        weight[-1] = background_weight
        self.weight: Tensor
        self.register_buffer('weight', weight, persistent=False)

    def loss(self, logits: Tensor, labels: Tensor, normaliser: Tensor) -> Tensor:
        """Weighted mean of the cross-entropy.

        Args:
            logits: (B, N, K + 1).
            labels: (B, N), ``num_classes`` for the background.
            normaliser: Not used: a mean has its own divisor.
        """
        del normaliser
        labels = labels.flatten()
        total = F.cross_entropy(logits.flatten(0, 1), labels, self.weight, reduction='sum')
        # Without denoising queries there is nothing to average.
        return total / self.weight[labels].sum().clamp(min=1e-6)

    def scores(self, logits: Tensor) -> Tensor:
        """Score of every class, (..., K).

        Args:
            logits: (..., K + 1).
        """
        return logits.softmax(-1)[..., :-1]

    # a softmax is exclusive already
    exclusive_scores = scores
