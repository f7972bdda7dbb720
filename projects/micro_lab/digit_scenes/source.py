"""Digit scenes as images without labels."""

from __future__ import annotations

import io

from PIL import Image

from kpu_mm.registry import DATASETS

from .materials import Split, materials
from .scene import scene


@DATASETS.register_module()
class DigitSceneSource:
    """Pictures of :func:`.scene`, composed when they are read.

    Needs scikit-learn and scikit-image, nothing else.

    Args:
        split: 'train' or 'test'. Defaults to 'train'.
        seed: Series of scenes. Defaults to 0.
        count: Number of scenes. Defaults to 20000.
        size: Height and width in pixels. Defaults to 64.

    Raises:
        ImportError: If a package is missing.
        ValueError: If there is no such split.
    """

    def __init__(
        self,
        split: Split = 'train',
        seed: int = 0,
        count: int = 20_000,
        size: int = 64,
    ) -> None:
        # what is missing shows before any worker starts
        materials(split)
        self._split = split
        self._seed = seed
        self._count = count
        self._size = size

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        """Return split, seed and index of a scene."""
        return f'digit scene {self._split}/{self._seed}/{index}'

    def read(self, index: int) -> bytes:
        """Return the scene as PNG."""
        if not 0 <= index < self._count:
            raise IndexError(f'{index} is outside 0..{self._count - 1}.')
        made = scene(self._split, self._seed, index, self._size)
        file = io.BytesIO()
        Image.fromarray(made.image).save(file, 'PNG', compress_level=1)
        return file.getvalue()
