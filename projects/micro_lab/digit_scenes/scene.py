"""One labelled scene: handwritten digits on a crop of a photograph."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from kpu_mm.datasets.hashing import stable_hash

from .materials import COLOURS, DIGIT_WORDS, Split, materials

MAX_DIGITS = 5
# side of a digit's frame, in sides of the scene
_LARGE = (0.34, 0.55)
_SMALL = (0.20, 0.36)
# the dominant digit is so many times as large as the next one
_DOMINANCE = 1.3
_MAX_ANGLE = np.deg2rad(20)
# ink that begins to show, and ink that hides all below it
_INK_RANGE = (0.25, 0.65)
# every digit keeps so much of its area in sight
_MIN_VISIBLE = 0.9
_PLACE_ATTEMPTS = 12
# mean difference to what lies below, in grey levels
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
    """A picture and everything that is known of it.

    Of N digits the first is the dominant one, clearly the largest; later
    ones lie in front of earlier ones.

    Args:
        image: RGB, (H, W, 3) uint8.
        digits: What they are, (N,) int64.
        scans: Which scans of the split they are, (N,) int64.
        colours: The name of each one's colour, N.
        masks: Pixels in sight, (N, H, W) bool.
        boxes: Tight boxes of the masks, x1, y1, x2, y2 with the ends
            outside, (N, 4) int64.
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
        """The dominant digit."""
        return int(self.digits[0])

    @property
    def semantic(self) -> np.ndarray:
        """0 for background, else 1 + digit; (H, W) uint8."""
        classes = (self.digits + 1)[:, None, None]
        return (self.masks * classes).sum(0).astype(np.uint8)


def scene(split: Split, seed: int, index: int, size: int = 64) -> Scene:
    """Compose a scene, always the same for the same arguments.

    Args:
        split: 'train' or 'test', which share neither scans nor photographs.
        seed: Chooses an endless series of scenes.
        index: Number of the scene in its series.
        size: Height and width in pixels; the composition is much the same
            at any. Defaults to 64.
    """
    random = np.random.default_rng(stable_hash('scene', split, seed, index))
    scans, digits, photographs = materials(split)
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
    word = DIGIT_WORDS[digits[chosen[0]]]
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
    """The smallest box around a mask.

    Args:
        mask: (H, W) bool, not empty.

    Returns:
        x1, y1, x2, y2; the ends lie outside.
    """
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return (
        int(columns[0]),
        int(rows[0]),
        int(columns[-1]) + 1,
        int(rows[-1]) + 1,
    )


def _background(
    photographs: tuple[Image.Image, ...],
    size: int,
    random: np.random.Generator,
) -> np.ndarray:
    """A square crop of a photograph, (size, size, 3) float32."""
    photograph = photographs[random.integers(len(photographs))]
    side = random.uniform(0.2, 0.7) * min(photograph.size)
    left, top = random.uniform(0, np.subtract(photograph.size, side))
    crop = photograph.resize(
        (size, size),
        Image.Resampling.BILINEAR,
        box=(left, top, left + side, top + side),
    )
    return np.array(crop, np.float32)


def _frame_sizes(size: int, random: np.random.Generator) -> list[float]:
    """Sides of the digits' frames in pixels, the dominant one first."""
    largest = random.uniform(*_LARGE)
    low, high = _SMALL
    others = random.uniform(
        low, min(high, largest / _DOMINANCE), random.integers(MAX_DIGITS)
    )
    return [size * largest, *(size * others)]


def _warp(
    scan: np.ndarray, frame: float, random: np.random.Generator
) -> np.ndarray:
    """Enlarge and turn a scan; its opacity without empty edges, (h, w)."""
    angle = random.uniform(-_MAX_ANGLE, _MAX_ANGLE)
    cells = (scan.shape[0] - 2) / frame  # of the scan, for each pixel
    side = int(np.ceil(1.4 * scan.shape[0] / cells))
    cos, sin = cells * np.cos(angle), cells * np.sin(angle)
    # from the centre of a target pixel to a place in the scan
    middle, centre = scan.shape[0] / 2, side / 2
    coefficients = (
        cos,
        sin,
        middle - (cos + sin) * centre,
        -sin,
        cos,
        middle - (cos - sin) * centre,
    )
    warped = Image.fromarray(scan).transform(
        (side, side),
        Image.Transform.AFFINE,
        coefficients,
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
    """Find a place where a digit hides little of earlier ones.

    Args:
        shape: Pixels of the digit, (h, w) bool.
        masks: What is in sight of earlier ones, (size, size) bool.
        limits: Pixels of each that must stay in sight.
        size: Side of the scene.
        random: Chooses.

    Returns:
        Rows and columns, and the mask (size, size); None without a place.
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


def _contrasting(
    below: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, str]:
    """Choose a colour that stands out from the pixels (P, 3) below it."""
    names = list(COLOURS)
    differences: list[float] = []
    colours = np.array([COLOURS[name] for name in names], np.float32)
    colours += random.uniform(-_COLOUR_JITTER, _COLOUR_JITTER, colours.shape)
    order = random.permutation(len(names))
    for choice in order:
        differences.append(np.abs(below - colours[choice]).mean())
        if differences[-1] > _MIN_CONTRAST:
            break
    best = order[int(np.argmax(differences))]
    return colours[best].astype(np.float32), names[best]
