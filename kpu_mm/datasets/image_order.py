"""The endless order of a stream, a pure function of seed and position."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch

# odd multipliers of Permutation: that of the golden ratio, and degski64's
_MASK = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15
_MIX = 0xD6E8FEB86659FD93
_ROUNDS = 6
# positions after which the pattern of a weighted mix repeats
_PERIOD = 1000
# Generators out of use; their state is of no consequence.
_spares: list[np.random.MT19937] = []


def stable_hash(*parts: int | str) -> int:
    """Hash a key to 63 bits.

    Python's own ``hash`` of a string differs between processes.

    Args:
        parts: The key, for example a seed, a purpose and a position.

    Returns:
        A number in [0, 2**63).
    """
    # 63 bits fit an int64, in which tables keep hashes.
    digest = blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators inside, leave them untouched outside.

    Python's, numpy's and torch's CPU generators are covered: the ones that
    transforms of OpenMMLab and torchvision draw from.

    Args:
        seed: Any number in [0, 2**63).
    """
    # torch.manual_seed would also reseed CUDA, or format a stack trace for
    # each sample as long as CUDA is not initialised.
    generator = torch.default_generator
    states = random.getstate(), generator.get_state()
    # Exchanging NumPy's generator is a hundred times as fast as copying
    # its state or making a new one.
    numpy_generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
    spare = _spares.pop() if _spares else np.random.MT19937(0)
    np.random.set_bit_generator(spare)  # type: ignore[attr-defined]
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_bit_generator(numpy_generator)  # type: ignore[attr-defined]
        _spares.append(spare)
        generator.set_state(states[1])


class Permutation:
    """A pseudo-random order of ``range(length)`` with random access.

    A Feistel network permutes the smallest power of two that holds the
    range; a value that falls outside is encrypted again until it is inside
    (`Ciphers with Arbitrary Finite Domains
    <https://web.cs.ucdavis.edu/~rogaway/papers/subset.pdf>`_, cycle
    walking). Fewer than two walks are needed on average.

    Args:
        length: Number of elements.
        key: Seed, epoch and whatever else tells this order from others.

    Raises:
        ValueError: If ``length`` is below one.
    """

    def __init__(self, length: int, *key: int | str) -> None:
        if length < 1:
            raise ValueError(f'A permutation needs length >= 1, got {length}.')
        self.length = length
        # two halves of a bit at least, for the network to exchange
        bits = max(2, (length - 1).bit_length())
        self._low_bits = bits // 2
        self._low_mask = (1 << self._low_bits) - 1
        self._low_shift = 64 - self._low_bits
        self._high_shift = 64 - (bits - self._low_bits)
        keys = [stable_hash(i, *key) for i in range(_ROUNDS)]
        self._key_pairs = tuple(zip(keys[::2], keys[1::2], strict=True))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.length:
            raise IndexError(f'{index} is outside 0..{self.length - 1}.')
        value = self._encrypt(index)
        # Cycle walking: outside of the range, go on until inside.
        while value >= self.length:
            value = self._encrypt(value)
        return value

    def _encrypt(self, value: int) -> int:
        """Permute the enclosing power of two."""
        low = value & self._low_mask
        high = value >> self._low_bits
        # Either half is changed by a function of the other alone, so each
        # step can be undone and the whole is a bijection.
        for high_key, low_key in self._key_pairs:
            mixed = (low * _ODD + high_key) & _MASK
            mixed = ((mixed ^ (mixed >> 32)) * _MIX) & _MASK
            high ^= mixed >> self._high_shift
            mixed = (high * _ODD + low_key) & _MASK
            mixed = ((mixed ^ (mixed >> 32)) * _MIX) & _MASK
            low ^= mixed >> self._low_shift
        return (high << self._low_bits) | low


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

    def __init__(self, lengths: Sequence[int], weights: Sequence[float] | None = None) -> None:
        self._lengths = list(lengths)
        self._ends = np.cumsum(self._lengths)
        if weights is None:
            self._pools = [int(self._ends[-1])]
            counts = [1]
        else:
            self._pools = self._lengths
            counts = _largest_remainder(self._lengths, weights)
        self._counts = counts
        # for each place of the period: its pool, and which of the pool's
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
        # Neighbouring positions share an epoch, so one order is enough.
        key, order = self._orders.get(pool, (None, None))
        if order is None or key != (seed, epoch):
            order = Permutation(self._pools[pool], seed, pool, epoch)
            self._orders[pool] = ((seed, epoch), order)
        return order


def _largest_remainder(lengths: Sequence[int], weights: Sequence[float]) -> list[int]:
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
    # When each place is due, as a share of the period; sorted, they alternate.
    due = (ranks + 0.5) / np.repeat(counts, counts)
    order = np.argsort(due, kind='stable')
    return pools[order], ranks[order]
