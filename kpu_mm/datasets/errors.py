"""The one error that a stream of images survives."""

from __future__ import annotations


class CorruptImageError(Exception):
    """An image cannot be read or decoded; the dataset skips it.

    Args:
        name: Which image, as its source names it.
        reason: What is wrong with it, in a few words.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f'{self.name}: {self.reason}'
