"""Classification without training: k nearest neighbours."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor

from kpu_mm.evaluation import knn_vote
from kpu_mm.registry import MODELS

__all__ = ['KNNClassifier']


@MODELS.register_module()
class KNNClassifier(BaseModel):
    """A backbone and a bank of features with known classes.

    The bank is filled by :class:`kpu_mm.engine.KNNTestLoop`. Data samples are
    MMPretrain's, and its metrics evaluate the predictions.

    Args:
        backbone: Config of a backbone whose last output is a vector an image,
            such as KPUBackbone with ``out_type='summary'``.
        num_classes: Number of classes.
        k: Number of neighbours. Defaults to 20.
        temperature: Softness of the vote. Defaults to 0.07.
        data_preprocessor: Config of the data preprocessor. Defaults to None.
    """

    bank: Tensor
    labels: Tensor

    def __init__(
        self,
        backbone: dict[str, Any],
        num_classes: int,
        k: int = 20,
        temperature: float = 0.07,
        data_preprocessor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor)
        self.backbone = MODELS.build(backbone)
        self.num_classes = num_classes
        self.k = k
        self.temperature = temperature
        # Not in checkpoints: the test loop fills the bank before each test.
        self.register_buffer('bank', torch.empty(0), persistent=False)
        self.register_buffer(
            'labels', torch.empty(0, dtype=torch.long), persistent=False
        )

    def set_bank(self, features: Tensor, labels: Tensor) -> None:
        """Replace the bank.

        Args:
            features: What ``mode='tensor'`` gives, (N, D).
            labels: Their classes, (N,) int64.

        Raises:
            ValueError: If a class is not below ``num_classes``.
        """
        if labels.max() >= self.num_classes:
            raise ValueError(
                f'the bank has label {int(labels.max())}, but num_classes is '
                f'{self.num_classes}; set num_classes to that of the data.'
            )
        device = self.bank.device
        self.bank, self.labels = features.to(device), labels.to(device)

    def forward(
        self,
        inputs: Tensor,
        data_samples: list[Any] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Features of images, or predictions for them.

        Args:
            inputs: Normalised images, (B, 3, H, W).
            data_samples: MMPretrain's data samples; only 'predict' needs
                them. Defaults to None.
            mode: 'tensor' or 'predict'. Defaults to 'tensor'.

        Returns:
            For 'tensor' the L2-normalised features, (B, D); for 'predict' the
            data samples with scores and labels.

        Raises:
            ValueError: If the mode is another.
            RuntimeError: If there is no bank to compare with.
        """
        # length 1: dot products with the bank are cosines
        features = F.normalize(self.backbone(inputs)[-1], dim=1)
        if mode == 'tensor':
            return features
        if mode != 'predict' or data_samples is None:
            raise ValueError(
                f"mode={mode!r}: choose 'tensor', or 'predict' with data "
                'samples; KNNClassifier is not trained.'
            )
        if not len(self.bank):
            raise RuntimeError(
                'KNNClassifier has no features to compare with: set '
                "test_cfg.type to 'kpu_mm.KNNTestLoop'."
            )
        scores = knn_vote(
            features,
            self.bank,
            self.labels,
            self.num_classes,
            self.k,
            self.temperature,
        )
        for sample, score in zip(data_samples, scores, strict=True):
            sample.set_pred_score(score).set_pred_label(score.argmax())
        return data_samples
