"""A shuffled order that needs no memory."""

from __future__ import annotations

from .hashing import stable_hash

_MASK = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15
_MIX = 0xD6E8FEB86659FD93
_ROUNDS = 6


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
