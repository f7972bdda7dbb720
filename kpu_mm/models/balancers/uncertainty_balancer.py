"""Uncertainty weighting: one learnt variance for each teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kpu_mm.registry import MODELS

from .base_balancer import Balance, BaseBalancer


@MODELS.register_module()
class UncertaintyBalancer(BaseBalancer):
    """Losses weighed by homoscedastic uncertainty.

    Kendall et al. (https://arxiv.org/abs/1705.07115), equation 7 with
    s = log(sigma^2): the sum over teachers of (exp(-s_t) L_t + s_t) / 2. The
    log-variances s start at 0 and are trained with the student, without
    weight decay. The loss may become negative.

    Args:
        teachers: Names of all T teachers.
        streams: As :class:`BaseBalancer` takes it. Defaults to None.
    """

    def __init__(
        self,
        teachers: Sequence[str],
        streams: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        super().__init__(teachers, streams)
        self.log_variances = nn.Parameter(torch.zeros(len(self.teachers)))

    def forward(self, losses: Mapping[str, Tensor]) -> Balance:
        """Weigh and sum.

        Args:
            losses: For some or all teachers, one value per image, (B,).
        """
        s = self.log_variances[[self.teachers.index(name) for name in losses]]
        means = torch.stack([loss.mean() for loss in losses.values()])
        weights = (-s).exp() / 2
        loss = (weights * means + s / 2).sum()
        return Balance(
            loss, dict(zip(losses, weights.detach().unbind(), strict=True))
        )
