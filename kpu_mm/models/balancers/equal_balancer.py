"""Every teacher counts the same."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kpu_mm.registry import MODELS

from .base_balancer import Balance, BaseBalancer


@MODELS.register_module()
class EqualBalancer(BaseBalancer):
    """1/T of each teacher's mean over its images.

    KPU (https://arxiv.org/abs/2508.14707). The arguments are those of
    :class:`BaseBalancer`.
    """

    def forward(self, losses: Mapping[str, Tensor]) -> Balance:
        """Weigh and sum.

        Args:
            losses: For some or all teachers, one value per image, (B,).
        """
        means = torch.stack([loss.mean() for loss in losses.values()])
        weight = means.new_tensor(1 / len(self.teachers))
        return Balance(weight * means.sum(), dict.fromkeys(losses, weight))
