"""AdaLoss: weights inverse to the losses' averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

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
        inverse = 1 / self.averages
        weights = inverse / inverse.sum()
        if self.training:
            self._update(average_over_ranks(means.detach().clone()))
        return Balance((weights * means).sum(), self.named(weights))

    def _update(self, means: Tensor) -> None:
        moved = self.averages.lerp(means, 1 - self.momentum)
        self.averages.copy_(torch.where(self.started, moved, means))
        self.started.fill_(True)
