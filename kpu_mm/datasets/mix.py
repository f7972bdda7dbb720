"""Several image sources as one endless stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .permutation import Permutation

_PERIOD = 1000


class SourceMix:
    """Maps an endless position to a source and an image of it, in O(1).

    With weights, a pattern of 1000 positions repeats in which each source
    has its share, rounded by largest remainder and spread evenly. Without,
    the sources act as one. Either way each image comes once before any of
    its source comes again, and every such epoch has an order of its own.

    Args:
        lengths: Number of images of each source.
        weights: Share of each source, in any unit. Defaults to None, the
            number of its images.

    Raises:
        ValueError: If a weight is missing or below 1/1000 of all.
    """

    def __init__(
        self, lengths: Sequence[int], weights: Sequence[float] | None = None
    ) -> None:
        self._lengths = list(lengths)
        self._ends = np.cumsum(self._lengths)
        if weights is None:
            self._pools = [int(self._ends[-1])]
            counts = [1]
        else:
            self._pools = self._lengths
            counts = _largest_remainder(self._lengths, weights)
        self._counts = counts
        self._pool_at, self._rank_at = _even_pattern(counts)
        self._orders: dict[int, tuple[tuple[int, int], Permutation]] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, position: int, seed: int) -> tuple[int, int]:
        """Find the image at a position.

        Args:
            position: Any number from 0.
            seed: Chooses the order.

        Returns:
            The source and the number of the image in it.
        """
        pool, epoch, index = self._place(position)
        image = self._order(pool, epoch, seed)[index]
        if self._pools is self._lengths:
            return pool, image
        return self.split(image)

    def split(self, image: int) -> tuple[int, int]:
        """Turn a number among all images into one of a source's.

        Args:
            image: From 0, source after source.

        Returns:
            The source and the number of the image in it.
        """
        source = int(np.searchsorted(self._ends, image, side='right'))
        return source, image - self._start(source)

    def _start(self, source: int) -> int:
        """Return how many images the sources before have."""
        return int(self._ends[source]) - self._lengths[source]

    def _place(self, position: int) -> tuple[int, int, int]:
        """Return pool, epoch and place in the epoch's order."""
        period, place = divmod(position, len(self._pool_at))
        pool = int(self._pool_at[place])
        ordinal = period * self._counts[pool] + int(self._rank_at[place])
        return pool, *divmod(ordinal, self._pools[pool])

    def _order(self, pool: int, epoch: int, seed: int) -> Permutation:
        """Return the order of an epoch; the last one is kept."""
        key, order = self._orders.get(pool, (None, None))
        if order is None or key != (seed, epoch):
            order = Permutation(self._pools[pool], seed, pool, epoch)
            self._orders[pool] = ((seed, epoch), order)
        return order


def _largest_remainder(
    lengths: Sequence[int], weights: Sequence[float]
) -> list[int]:
    """Share ``_PERIOD`` places by weight."""
    if len(weights) != len(lengths):
        raise ValueError(
            f'{len(lengths)} sources have {len(weights)} weights '
            f'{list(weights)}; give one weight for each source.'
        )
    shares = np.asarray(weights, float)
    total = shares.sum()
    # Written so that NaN fails too.
    if not (shares * _PERIOD >= total).all() or not 0 < total < np.inf:
        raise ValueError(
            f'Weights {list(weights)} are not positive shares of at least '
            f'1/{_PERIOD} each; leave out the sources that are not wanted.'
        )
    exact = shares / total * _PERIOD
    counts = np.floor(exact).astype(int)
    missing = _PERIOD - int(counts.sum())
    counts[np.argsort(counts - exact, kind='stable')[:missing]] += 1
    return counts.tolist()


def _even_pattern(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Spread each pool's places evenly over one period.

    Returns:
        For each place, its pool and how many places of that pool come
        before, both (P,) int.
    """
    pools = np.repeat(np.arange(len(counts)), counts)
    ranks = np.concatenate([np.arange(count) for count in counts])
    due = (ranks + 0.5) / np.repeat(counts, counts)
    order = np.argsort(due, kind='stable')
    return pools[order], ranks[order]
