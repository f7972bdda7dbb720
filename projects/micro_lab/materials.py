"""The parts of scenes: scans, photographs, colours and words."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from .glyphs import draw_glyphs

Split = Literal['train', 'test']
# What a scene shows: handwritten digits, letters and signs, or letters of
# scripts that no training has (glyphs.py).
Glyphs = Literal['digits', 'letters', 'scripts']

DIGIT_WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
COLOURS = {
    'red': (205, 35, 35),
    'orange': (245, 140, 25),
    'yellow': (245, 225, 60),
    'green': (40, 150, 50),
    'cyan': (70, 215, 225),
    'blue': (35, 60, 200),
    'purple': (125, 45, 165),
    'pink': (250, 140, 190),
    'white': (245, 245, 245),
    'black': (15, 15, 15),
}
# The scans are sorted by writer, so a cut by position gives the test split
# writers that the training split does not have.
FIRST_TEST_SCAN = 1400
PHOTOGRAPHS: dict[Split, tuple[str, ...]] = {
    'train': (
        'astronaut.png',
        'brick.png',
        'camera.png',
        'chelsea.png',
        'coins.png',
        'grass.png',
        'hubble_deep_field.jpg',
        'ihc.png',
        'motorcycle_left.png',
        'motorcycle_right.png',
        'rocket.jpg',
    ),
    'test': ('coffee.png', 'gravel.png', 'moon.png', 'retina.jpg'),
}
_MAX_SIDE = 512


class Materials(NamedTuple):
    """Scans and photographs of one split.

    Args:
        scans: Ink in [0, 1] with a margin of one pixel, (N, 10, 10)
            float32.
        digits: The digit of each scan, or the number of its letter,
            (N,) int64.
        photographs: RGB images with sides of 512 pixels at most.
        words: The names of the classes.
    """

    scans: np.ndarray
    digits: np.ndarray
    photographs: tuple[Image.Image, ...]
    words: tuple[str, ...]


@cache
def materials(split: Split, glyphs: Glyphs = 'digits') -> Materials:
    """Read the scans and photographs of a split, once per process.

    The scans are `scikit-learn's handwritten digits
    <https://doi.org/10.24432/C50P49>`_, the photographs are
    `scikit-image's <https://scikit-image.org/docs/stable/api/skimage.data>`_;
    both come with the packages.

    Args:
        split: 'train' or 'test'.
        glyphs: Which scans. Defaults to 'digits'.

    Raises:
        ImportError: If a package is missing.
        ValueError: If there is no such split.
    """
    if split not in PHOTOGRAPHS:
        raise ValueError(f"Digit scenes have no split {split!r}; use 'train' or 'test'.")
    if glyphs == 'digits':
        ink, classes = _read_digits(split)
        words: tuple[str, ...] = DIGIT_WORDS
    else:
        ink, classes, words = draw_glyphs(glyphs, split)
    return Materials(
        np.pad(ink, ((0, 0), (1, 1), (1, 1))),
        classes,
        tuple(_read_photograph(name) for name in PHOTOGRAPHS[split]),
        words,
    )


def _read_digits(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Ink of scikit-learn's digits, (N, 8, 8), and their classes, (N,)."""
    # The file is read directly, because importing scikit-learn takes a second
    # and pulls in three more packages.
    table = np.loadtxt(
        _package_folder('sklearn', 'scikit-learn') / 'datasets/data/digits.csv.gz', delimiter=','
    )
    table = np.split(table, [FIRST_TEST_SCAN])[split == 'test']
    # The last column is the label; ink has levels 0 to 16.
    # (N, 64) -> (N, 8, 8)
    ink = table[:, :-1].reshape(-1, 8, 8).astype(np.float32) / 16
    return ink, table[:, -1].astype(np.int64)


def _read_photograph(name: str) -> Image.Image:
    folder = _package_folder('skimage', 'scikit-image') / 'data'
    with Image.open(folder / name) as file:
        image = file.convert('RGB')
    image.thumbnail((_MAX_SIDE, _MAX_SIDE))
    return image


def _package_folder(name: str, distribution: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f'Digit scenes use data that come with {distribution}; '
            f'run `pip install {distribution}`.'
        )
    return Path(spec.submodule_search_locations[0])
