"""Digit scenes: small labelled pictures, composed when they are needed.

A scene shows one to five handwritten digits on a crop of a photograph.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from kpu_mm.datasets import stable_hash
from kpu_mm.registry import DATASETS

from .materials import COLOURS, Glyphs, Split, materials

MAX_DIGITS = 5
# Sides of a digit's frame as shares of the scene's side: the dominant digit,
# and all others. The dominant one is at least _DOMINANCE times as large.
_LARGE = (0.34, 0.55)
_SMALL = (0.20, 0.36)
_DOMINANCE = 1.3
_MAX_ANGLE = np.deg2rad(20)
# Ink below the first level is transparent, ink above the second is opaque.
_INK_RANGE = (0.25, 0.65)
# Later digits may cover at most a tenth of an earlier one.
_MIN_VISIBLE = 0.9
_PLACE_ATTEMPTS = 12
# Mean difference between a digit's colour and its background, in grey levels.
_MIN_CONTRAST = 60
_COLOUR_JITTER = 18
_NOISE = 4.0
CAPTIONS = (
    'a photo of the digit {digit}',
    'a picture of the number {digit}',
    'the digit {digit}',
    'a handwritten {digit}',
    'a {colour} {digit}',
    'a photo of a {colour} {digit}',
)


class Scene(NamedTuple):
    """A picture with all its labels.

    The first of its N digits is the dominant one, which is clearly the
    largest. Later digits lie in front of earlier ones.

    Args:
        image: RGB, (H, W, 3) uint8.
        digits: Classes, (N,) int64.
        scans: Indices of the scans in their split, (N,) int64.
        colours: Names of the colours, N.
        masks: Visible pixels of each digit, (N, H, W) bool.
        boxes: Tight boxes x1, y1, x2, y2 of the masks, where x2 and y2 are
            exclusive, (N, 4) int64.
        caption: A sentence about the dominant digit.
    """

    image: np.ndarray
    digits: np.ndarray
    scans: np.ndarray
    colours: tuple[str, ...]
    masks: np.ndarray
    boxes: np.ndarray
    caption: str

    @property
    def label(self) -> int:
        """The class of the dominant digit."""
        return int(self.digits[0])

    @property
    def semantic(self) -> np.ndarray:
        """0 for background and 1 + digit elsewhere, (H, W) uint8."""
        # No pixel belongs to two masks, so the sum picks one class.
        # (N, H, W) -> (H, W)
        classes = (self.digits + 1)[:, None, None]
        return (self.masks * classes).sum(0).astype(np.uint8)


def scene(split: Split, seed: int, index: int, size: int = 64, glyphs: Glyphs = 'digits') -> Scene:
    """Compose a scene; equal arguments always give the equal scene.

    Args:
        split: 'train' or 'test', which share neither scans nor photographs.
        seed: Seed of an endless series of scenes.
        index: Index of the scene in its series.
        size: Height and width in pixels. The composition is nearly the same
            at every size. Defaults to 64.
        glyphs: What it shows in place of digits. Defaults to 'digits'.
    """
    random = np.random.default_rng(stable_hash('scene', split, seed, index))
    scans, digits, photographs, words = materials(split, glyphs)
    image = _background(photographs, size, random)
    chosen: list[int] = []
    colours: list[str] = []
    masks: list[np.ndarray] = []
    limits: list[float] = []
    for frame in _frame_sizes(size, random):
        scan = int(random.integers(len(scans)))
        opacity = _warp(scans[scan], frame, random)
        place = _place(opacity >= 0.5, masks, limits, size, random)
        if place is None:
            continue
        area, mask = place
        for earlier in masks:
            earlier &= ~mask
        colour, name = _contrasting(image[mask], random)
        image[area] += opacity[..., None] * (colour - image[area])
        masks.append(mask)
        limits.append(_MIN_VISIBLE * mask.sum())
        chosen.append(scan)
        colours.append(name)
    image += random.normal(0, _NOISE, image.shape)
    template = CAPTIONS[int(random.integers(len(CAPTIONS)))]
    word = words[digits[chosen[0]]]
    return Scene(
        image.round().clip(0, 255).astype(np.uint8),
        digits[chosen],
        np.array(chosen),
        tuple(colours),
        np.stack(masks),
        np.array([tight_box(mask) for mask in masks]),
        template.format(digit=word, colour=colours[0]),
    )


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the smallest box around a mask.

    Args:
        mask: (H, W) bool, not empty.

    Returns:
        x1, y1, x2, y2, where x2 and y2 are exclusive.
    """
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    x1, y1 = int(columns[0]), int(rows[0])
    return x1, y1, int(columns[-1]) + 1, int(rows[-1]) + 1


def _background(
    photographs: tuple[Image.Image, ...], size: int, random: np.random.Generator
) -> np.ndarray:
    """A square crop of a photograph, (size, size, 3) float32."""
    photograph = photographs[random.integers(len(photographs))]
    side = random.uniform(0.2, 0.7) * min(photograph.size)
    left, top = random.uniform(0, np.subtract(photograph.size, side))
    crop = photograph.resize(
        (size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    return np.array(crop, np.float32)


def _frame_sizes(size: int, random: np.random.Generator) -> list[float]:
    """Sides of the digits' frames in pixels, the dominant one first."""
    largest = random.uniform(*_LARGE)
    low, high = _SMALL
    others = random.uniform(low, min(high, largest / _DOMINANCE), random.integers(MAX_DIGITS))
    return [size * largest, *(size * others)]


def _warp(scan: np.ndarray, frame: float, random: np.random.Generator) -> np.ndarray:
    """Enlarge and rotate a scan; its opacity without empty edges, (h, w)."""
    angle = random.uniform(-_MAX_ANGLE, _MAX_ANGLE)
    cells = (scan.shape[0] - 2) / frame  # scan pixels per scene pixel
    # 1.4 is about the diagonal of a unit square, so no rotation is cut off.
    side = int(np.ceil(1.4 * scan.shape[0] / cells))
    cos, sin = cells * np.cos(angle), cells * np.sin(angle)
    # Pillow wants the map from target pixels back to scan pixels, here around
    # the centres of both.
    middle, centre = scan.shape[0] / 2, side / 2
    offset_x = middle - (cos + sin) * centre
    offset_y = middle - (cos - sin) * centre
    warped = Image.fromarray(scan).transform(
        (side, side),
        Image.Transform.AFFINE,
        (cos, sin, offset_x, -sin, cos, offset_y),
        Image.Resampling.BICUBIC,
    )
    faint, full = _INK_RANGE
    opacity = ((np.asarray(warped) - faint) / (full - faint)).clip(0, 1)
    left, top, right, bottom = tight_box(opacity > 0)
    return opacity[top:bottom, left:right]


def _place(
    shape: np.ndarray,
    masks: list[np.ndarray],
    limits: list[float],
    size: int,
    random: np.random.Generator,
) -> tuple[tuple[slice, slice], np.ndarray] | None:
    """Find a position where a digit hides little of the earlier ones.

    Args:
        shape: Pixels of the digit, (h, w) bool.
        masks: Visible pixels of the earlier digits, (size, size) bool.
        limits: Number of pixels of each that must stay visible.
        size: Side of the scene.
        random: Source of the positions.

    Returns:
        Rows and columns, and the mask (size, size); None if no attempt fits.
    """
    height, width = shape.shape
    for _ in range(_PLACE_ATTEMPTS):
        top = int(random.integers(size - height + 1))
        left = int(random.integers(size - width + 1))
        area = slice(top, top + height), slice(left, left + width)
        if all(
            mask.sum() - (mask[area] & shape).sum() >= limit
            for mask, limit in zip(masks, limits, strict=True)
        ):
            mask = np.zeros((size, size), bool)
            mask[area] = shape
            return area, mask
    return None


def _contrasting(below: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, str]:
    """Choose a colour that differs from the pixels (P, 3) it will cover."""
    names = list(COLOURS)
    colours = np.array([COLOURS[name] for name in names], np.float32)
    colours += random.uniform(-_COLOUR_JITTER, _COLOUR_JITTER, colours.shape)
    order = random.permutation(len(names))
    differences: list[float] = []
    for choice in order:
        differences.append(np.abs(below - colours[choice]).mean())
        if differences[-1] > _MIN_CONTRAST:
            break
    best = order[int(np.argmax(differences))]
    return colours[best].astype(np.float32), names[best]


@DATASETS.register_module()
class DigitSceneSource:
    """Digit scenes as images without labels, composed when they are read.

    It needs scikit-learn and scikit-image, and no files.

    Args:
        split: 'train' or 'test'. Defaults to 'train'.
        seed: Seed of the series of scenes. Defaults to 0.
        count: Number of scenes. Defaults to 20000.
        size: Height and width in pixels. Defaults to 64.

    Raises:
        ImportError: If a package is missing.
        ValueError: If there is no such split.
    """

    def __init__(
        self, split: Split = 'train', seed: int = 0, count: int = 20_000, size: int = 64
    ) -> None:
        # Read here, so that a missing package is reported before the workers
        # of a loader start.
        materials(split)
        self._split: Split = split
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
