"""Linear CKA of features that come batch by batch."""

from __future__ import annotations

from torch import Tensor

from kpu_mm.evaluation.functional import (
    LinearSums,
    add_sums,
    alignment,
    linear_sums,
    unbiased_hsic,
)
from kpu_mm.structures import valid_vectors


class StreamingCKA:
    """Unbiased linear CKA over all samples of all batches.

    Not an average over minibatches: with linear kernels the sums of
    :func:`linear_sums` give the very value of all samples at once, in memory
    that depends on the channels alone. Every valid position of every image is
    a sample.
    """

    def __init__(self) -> None:
        self.shifts: tuple[Tensor, Tensor] | None = None
        self.sums: tuple[LinearSums, ...] = ()

    @property
    def count(self) -> int:
        """Samples seen."""
        return self.sums[0].n if self.sums else 0

    def add(
        self, first: Tensor, second: Tensor, mask: Tensor | None = None
    ) -> None:
        """Take in a batch.

        Args:
            first: Features of one model, (B, C) or (B, C, H, W).
            second: Another's of the same images, (B, D) or (B, D, H, W).
            mask: Which positions count, (B, 1, H, W) bool. Defaults to None,
                all.
        """
        x = valid_vectors(first, mask).double()
        y = valid_vectors(second, mask).double()
        if not len(x):
            return
        if self.shifts is None:
            # CKA does not see a shift; without one, sums of features far from
            # zero would lose the digits that tell samples apart
            self.shifts = x.mean(0), y.mean(0)
        x, y = x - self.shifts[0], y - self.shifts[1]
        new = tuple(linear_sums(a, b) for a, b in ((x, y), (x, x), (y, y)))
        self.sums = tuple(map(add_sums, self.sums, new)) if self.sums else new

    def value(self) -> float:
        """The similarity, 1 for equal spaces, about 0 for unrelated ones.

        Raises:
            ValueError: If there are fewer than four samples.
        """
        if self.count < 4:
            raise ValueError(
                f'CKA needs four samples or more and got {self.count}; look '
                'at more images.'
            )
        return alignment(*map(unbiased_hsic, self.sums)).item()
