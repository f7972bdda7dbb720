"""Every teacher counts the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kpu_mm.registry import MODELS


@MODELS.register_module()
class EqualBalancer(nn.Module):
    """1/T of each teacher's mean over its images.

    KPU (https://arxiv.org/abs/2508.14707).

    Args:
        teachers: Names of all T teachers.
    """

    def __init__(self, teachers: Sequence[str]) -> None:
        super().__init__()
        self.teachers = tuple(teachers)

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Weigh and sum.

        Args:
            losses: For some or all teachers, one value per image, (B,).

        Returns:
            Their share of the total, a scalar.
        """
        means = torch.stack([loss.mean() for loss in losses.values()])
        return means.sum() / len(self.teachers)
