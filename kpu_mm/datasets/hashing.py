"""Numbers that depend on their key alone, on every machine and run."""

from __future__ import annotations

from hashlib import blake2b


def stable_hash(*parts: int | str) -> int:
    """Hash a key to 63 bits.

    Python's own ``hash`` of a string differs between processes.

    Args:
        parts: The key, for example a seed, a purpose and a position.

    Returns:
        A number in [0, 2**63).
    """
    digest = blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1
