"""Digit scenes as arrays, composed once and kept on disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .digit_scenes.materials import COLOURS, Split
from .digit_scenes.scene import MAX_DIGITS, Scene, scene

SIZE = 64


class Pool(NamedTuple):
    """N scenes; digits that are not there have number -1.

    Args:
        images: (N, H, W, 3) uint8.
        instances: Which digit of the scene is in sight, from 1; 0 for none,
            (N, H, W) uint8.
        digits: (N, 5) int64.
        scans: (N, 5) int64.
        colours: Indices of COLOURS, (N, 5) int64.
        boxes: (N, 5, 4) int64.
    """

    images: np.ndarray
    instances: np.ndarray
    digits: np.ndarray
    scans: np.ndarray
    colours: np.ndarray
    boxes: np.ndarray

    def batch(self, indices: np.ndarray) -> PoolBatch:
        """Take scenes as tensors.

        Args:
            indices: (B,).
        """
        return PoolBatch(
            *(torch.from_numpy(np.asarray(a[indices])) for a in self)
        )


class PoolBatch(NamedTuple):
    """Scenes of a pool as tensors of the same shapes."""

    images: Tensor
    instances: Tensor
    digits: Tensor
    scans: Tensor
    colours: Tensor
    boxes: Tensor


def load_pool(folder: Path, split: Split, seed: int, count: int) -> Pool:
    """Map the pool in a folder, composing it if it is not there.

    Args:
        folder: Where pools are kept.
        split: 'train' or 'test'.
        seed: Series of scenes.
        count: Number of scenes.
    """
    place = folder / f'{split}-{seed}-{count}-{SIZE}'
    if not place.is_dir():
        temporary = place.with_name(f'{place.name}.{os.getpid()}.tmp')
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _compose(temporary, split, seed, count)
        temporary.rename(place)
    return Pool(
        *(np.load(place / f'{f}.npy', mmap_mode='r') for f in Pool._fields)
    )


def _compose(folder: Path, split: Split, seed: int, count: int) -> None:
    pool = Pool(
        np.zeros((count, SIZE, SIZE, 3), np.uint8),
        np.zeros((count, SIZE, SIZE), np.uint8),
        np.full((count, MAX_DIGITS), -1),
        np.full((count, MAX_DIGITS), -1),
        np.full((count, MAX_DIGITS), -1),
        np.zeros((count, MAX_DIGITS, 4), np.int64),
    )
    for index in range(count):
        _fill(pool, index, scene(split, seed, index, SIZE))
    for name, values in pool._asdict().items():
        np.save(folder / f'{name}.npy', values)


def _fill(pool: Pool, index: int, made: Scene) -> None:
    number = len(made.digits)
    order = np.arange(1, number + 1)[:, None, None]
    pool.images[index] = made.image
    pool.instances[index] = (made.masks * order).sum(0)
    pool.digits[index, :number] = made.digits
    pool.scans[index, :number] = made.scans
    names = list(COLOURS)
    pool.colours[index, :number] = [names.index(c) for c in made.colours]
    pool.boxes[index, :number] = made.boxes
