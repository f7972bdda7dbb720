"""Moments: count, mean and covariance of vectors that come in parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmengine.dist import all_reduce
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Mean and scatter of the vectors seen, to be merged by ``+``.

    The parallel update of Chan, Golub and LeVeque
    (https://doi.org/10.1080/00031305.1983.10483115): centred sums in
    float64, so that a mean far from zero costs no digits, and the order of
    the parts matters to rounding alone.

    Args:
        count: Vectors.
        mean: (C,) float64.
        scatter: Sum of the outer products of what is left of the mean,
            (C, C) float64.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> Moments:
        """The moments of some vectors, which may be none.

        Args:
            vectors: (N, C).
        """
        vectors = vectors.double()
        mean = vectors.sum(0) / max(len(vectors), 1)
        centred = vectors - mean
        return cls(len(vectors), mean, centred.T @ centred)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = other.count / max(count, 1)
        step = other.mean - self.mean
        between = self.count * share * torch.outer(step, step)
        return Moments(
            count,
            self.mean + share * step,
            self.scatter + other.scatter + between,
        )

    def over_ranks(self) -> Moments:
        """The moments of what all processes have seen, the same for each."""
        count = torch.tensor(self.count, device=self.mean.device)
        mean = self.count * self.mean
        all_reduce(count)
        all_reduce(mean)
        mean /= count.clamp(min=1)
        step = self.mean - mean
        scatter = self.scatter + self.count * torch.outer(step, step)
        all_reduce(scatter)
        return Moments(int(count), mean, scatter)

    def cpu(self) -> Moments:
        """The same on the CPU."""
        return Moments(self.count, self.mean.cpu(), self.scatter.cpu())

    @property
    def covariance(self) -> Tensor:
        """Covariance, divided by the count, (C, C)."""
        return self.scatter / max(self.count, 1)

    @property
    def variance(self) -> Tensor:
        """Variance of each channel, (C,)."""
        return self.covariance.diagonal()


def valid_vectors(values: Tensor, mask: Tensor | None) -> Tensor:
    """The vectors of a summary or a map, padding left out.

    Args:
        values: (B, C) or (B, C, H, W).
        mask: Which positions count, (B, 1, H, W) bool; None for all.

    Returns:
        (N, C).
    """
    # (B, C, H, W) -> (B, H, W, C)
    vectors = values.movedim(1, -1)
    if mask is None:
        return vectors.reshape(-1, vectors.shape[-1])
    return vectors[mask[:, 0]]
