"""Digit scenes as tensors, which are composed once and kept on disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .digit_scenes import MAX_DIGITS, scene
from .materials import COLOURS, Glyphs, Split

SIZE = 64  # pixels, height and width


class Scenes(NamedTuple):
    """N scenes with room for five digits each.

    Absent digits have class, scan and colour -1.

    Args:
        images: (N, H, W, 3) uint8.
        instances: Number of the visible digit in its scene, from 1; 0 for
            background, (N, H, W) uint8.
        digits: Classes, (N, 5) int64.
        scans: Indices of the scans in their split, (N, 5) int64.
        colours: Indices of COLOURS, (N, 5) int64.
        boxes: x1, y1, x2, y2 in pixels, (N, 5, 4) int64.
    """

    images: Tensor
    instances: Tensor
    digits: Tensor
    scans: Tensor
    colours: Tensor
    boxes: Tensor

    def take(self, indices: np.ndarray | slice) -> Scenes:
        """Return some of the scenes.

        Args:
            indices: Indices of the scenes, (B,), or a slice.
        """
        return Scenes(*(values[indices] for values in self))


def load_pool(
    folder: Path, split: Split, seed: int, count: int, glyphs: Glyphs = 'digits', size: int = SIZE
) -> Scenes:
    """Open a pool memory-mapped, and compose it first if it is missing.

    Args:
        folder: Folder of all pools.
        split: 'train' or 'test'.
        seed: Seed of the series of scenes.
        count: Number of scenes.
        glyphs: What the scenes show. Defaults to 'digits'.
        size: Height and width in pixels. Defaults to 64.
    """
    place = folder / f'{glyphs}-{split}-{seed}-{count}-{size}'
    if not place.is_dir():
        # The rename at the end makes the pool appear only when complete.
        temporary = place.with_name(f'{place.name}.{os.getpid()}.tmp')
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _compose(temporary, split, seed, count, glyphs, size)
        temporary.rename(place)
    # Mode 'c' (copy on write) makes writable arrays, as torch wants them, and
    # never changes the files.
    return Scenes(
        *(
            torch.from_numpy(np.load(place / f'{name}.npy', mmap_mode='c'))
            for name in Scenes._fields
        )
    )


def _compose(folder: Path, split: Split, seed: int, count: int, glyphs: Glyphs, size: int) -> None:
    absent = np.full((count, MAX_DIGITS), -1)
    pool = dict(
        images=np.zeros((count, size, size, 3), np.uint8),
        instances=np.zeros((count, size, size), np.uint8),
        digits=absent.copy(),
        scans=absent.copy(),
        colours=absent.copy(),
        boxes=np.zeros((count, MAX_DIGITS, 4), np.int64),
    )
    names = list(COLOURS)
    for index in range(count):
        made = scene(split, seed, index, size, glyphs)
        number = len(made.digits)
        order = np.arange(1, number + 1)[:, None, None]
        pool['images'][index] = made.image
        # Masks do not overlap: (N, H, W) -> (H, W).
        pool['instances'][index] = (made.masks * order).sum(0)
        colours = [names.index(c) for c in made.colours]
        pool['colours'][index, :number] = colours
        for name in ('digits', 'scans', 'boxes'):
            pool[name][index, :number] = getattr(made, name)
    for name, values in pool.items():
        np.save(folder / f'{name}.npy', values)
