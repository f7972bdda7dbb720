"""Weights from each loss's scale: its moving average, or a learnt one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kpu_mm.registry import MODELS

from ..average_over_ranks import average_over_ranks
from .base_balancer import Balance, BaseBalancer


@MODELS.register_module()
class AdaLossBalancer(BaseBalancer):
    """All losses brought to the same scale by their moving averages.

    AdaLoss (https://arxiv.org/abs/1708.06832), as AM-RADIO
    (https://arxiv.org/abs/2312.06709, section 3.4.1) tried it with momentum
    0.99. Weights are proportional to the inverse of each loss's exponential
    average over the steps before, and sum to 1, as equal weights do; the
    first step has equal weights.

    Args:
        teachers: Names of all T teachers.
        streams: As :class:`BaseBalancer` takes it. Defaults to None.
        momentum: Share of the old average in the new one. Defaults to 0.99.
    """

    separable = False

    averages: Tensor
    started: Tensor

    def __init__(
        self,
        teachers: Sequence[str],
        streams: Mapping[str, tuple[str, ...]] | None = None,
        momentum: float = 0.99,
    ) -> None:
        super().__init__(teachers, streams)
        self.momentum = momentum
        self.register_buffer('averages', torch.ones(len(teachers)))
        self.register_buffer('started', torch.tensor(False))

    def forward(self, losses: Mapping[str, Tensor]) -> Balance:
        """Weigh and sum; in training, then update the averages.

        Args:
            losses: For all teachers, one value per image, (B,).
        """
        means = self.means(losses)
        # the averages of the steps before: this step's come after it
        inverse = 1 / self.averages
        weights = inverse / inverse.sum()
        if self.training:
            self._update(average_over_ranks(means.detach().clone()))
        return Balance((weights * means).sum(), self.named(weights))

    def _update(self, means: Tensor) -> None:
        # The first step sets the averages, or they would start from ones.
        moved = self.averages.lerp(means, 1 - self.momentum)
        self.averages.copy_(torch.where(self.started, moved, means))
        self.started.fill_(True)


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
        # only of the teachers given: one call may bring one stream
        s = self.log_variances[[self.teachers.index(name) for name in losses]]
        means = torch.stack([loss.mean() for loss in losses.values()])
        weights = (-s).exp() / 2  # 1 / (2 sigma^2)
        loss = (weights * means + s / 2).sum()
        return Balance(
            loss, dict(zip(losses, weights.detach().unbind(), strict=True))
        )
