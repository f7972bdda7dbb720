"""Targets normalised by statistics that are measured while training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features, Moments

from .base_normalizer import AffineMap, BaseNormalizer


@MODELS.register_module()
class MovingNormalizer(BaseNormalizer):
    """Every channel has mean 0 and variance 1, by what training has seen.

    DUNE (https://arxiv.org/abs/2503.14405) and UNIC
    (https://arxiv.org/abs/2408.05088), as their code has it. Each step
    measures mean and deviation over the images of all processes, padding left
    out, and moves averages towards them. The share of a new batch in the
    averages falls from ``momentum[0]`` to ``momentum[1]`` along a cosine.
    Targets of a training step are normalised by its own batch (DUNE) or by the
    averages before it (UNIC); in eval mode and for :meth:`invert` the averages
    count. They and the number of batches are part of the state dict. A teacher
    with several streams has a batch of each in one step.

    Args:
        summary_channels: Channels of the teacher's summary; None for a
            teacher without one.
        channels: Channels of each of its maps.
        updates: After how many batches the share has fallen; the iterations
            of the training.
        summary: Normalise the summary too. Defaults to True.
        momentum: First and last share. Defaults to (1.0, 0.001).
        by: 'batch' or 'average', what the targets of a training step are
            normalised by. Defaults to 'batch'.
        eps: Smallest deviation to divide by. Defaults to 1e-3.

    Raises:
        ValueError: If an option has a value that makes no sense.
    """

    dense = False

    seen: Tensor

    def __init__(
        self,
        summary_channels: int | None,
        channels: Sequence[int],
        updates: int,
        summary: bool = True,
        momentum: tuple[float, float] = (1.0, 0.001),
        by: str = 'batch',
        eps: float = 1e-3,
    ) -> None:
        if by not in ('batch', 'average'):
            raise ValueError(f"by={by!r}: choose 'batch' or 'average'.")
        if updates < 1 or not 1 >= momentum[0] >= momentum[1] >= 0 or not eps > 0:
            raise ValueError(
                f'updates={updates}, momentum={momentum}, eps={eps}: give one batch at least, '
                'two falling shares from 1 to 0, and a positive eps.'
            )
        super().__init__(summary_channels, channels, summary)
        self.updates = updates
        self.momentum = momentum
        self.by = by
        self.eps = eps
        self.register_buffer('seen', torch.tensor(0))
        # nothing has to be measured before training
        self.fitted.fill_(True)

    def solve(self, moments: Moments) -> AffineMap:
        """Find the map for one output.

        Args:
            moments: Those of its vectors, on the CPU.
        """
        return self._map(moments.mean, moments.variance.sqrt())

    def forward(self, features: Features) -> Features:
        """Normalise a teacher's features; in training, learn from them.

        Args:
            features: Summary (B, D) and maps, each (B, C_i, H_i, W_i).
        """
        if not self.training:
            return super().forward(features)
        share = self._share()
        self.seen += 1
        averages = self._outputs()
        found = {
            name: self._map(*_mean_and_std(values.detach(), mask))
            for name, values, mask in features.outputs()
            if name in averages
        }
        normalised = self._change(features, found if self.by == 'batch' else averages)
        for name, own in averages.items():
            own.mean.lerp_(found[name].mean, share)
            # The inverse is the deviation.
            own.inverse.lerp_(found[name].inverse, share)
            own.weight.copy_(1 / own.inverse)
        return normalised

    def _share(self) -> Tensor:
        """What a batch has in the averages; on the device, without waiting."""
        first, last = self.momentum
        done = self.seen.clamp(max=self.updates) / self.updates
        return last + (first - last) / 2 * (1 + torch.cos(math.pi * done))

    def _map(self, mean: Tensor, std: Tensor) -> AffineMap:
        std = std.clamp(min=self.eps)
        return AffineMap(mean, 1 / std, std)

    def _unfitted(self, channels: int) -> AffineMap:
        # before the first batch nothing is changed
        ones = torch.ones(channels)
        return AffineMap(torch.zeros(channels), ones, ones.clone())


def _mean_and_std(values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel over all processes, (C,) twice.

    Args:
        values: (B, C) or (B, C, H, W).
        mask: Which positions count, (B, 1, H, W) bool; None for all.
    """
    dims = [d for d in range(values.ndim) if d != 1]
    count = values.new_full((1,), values.numel() // values.shape[1], dtype=torch.float64)
    if mask is not None:
        values = values.masked_fill(~mask, 0)
        count = mask.sum(dtype=torch.float64)[None]
    # Sums in float64, as they nearly cancel where the mean is far from zero,
    # and without a copy of the map; one reduction for all three.
    total = values.sum(dims, dtype=torch.float64)
    norm = torch.linalg.vector_norm(values, dim=dims, dtype=torch.float64)
    sums = torch.cat([count, total, norm.square()])
    all_reduce(sums)
    n = sums[0].clamp(min=1)
    total, squares = sums[1:].chunk(2)
    mean = total / n
    # over n - 1, as torch.std
    variance = (squares - n * mean.square()).clamp(min=0) / (n - 1).clamp(min=1)
    return mean, variance.sqrt()
