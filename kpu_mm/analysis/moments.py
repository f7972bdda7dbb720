"""Mean and standard deviation of values that come batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """Sums over all values seen, padding left out.

    Args:
        count: Values. Defaults to 0.
        total: Their sum. Defaults to 0.0.
        squares: The sum of their squares. Defaults to 0.0.
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: Tensor, mask: Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            values: (B, C, ...).
            mask: Which positions count, (B, 1, ...) bool; None for all.
                Defaults to None.
        """
        values = values.float()
        if mask is None:
            self.count += values.numel()
        else:
            values = values.masked_fill(~mask, 0)
            self.count += int(mask.sum()) * values.shape[1]
        self.total += values.sum(dtype=torch.float64).item()
        self.squares += values.square().sum(dtype=torch.float64).item()

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
        )

    @property
    def mean(self) -> float:
        """Mean of all values."""
        return self.total / self.count

    @property
    def std(self) -> float:
        """Standard deviation of all values."""
        variance = self.squares / self.count - self.mean**2
        return float(max(variance, 0.0) ** 0.5)
