"""Letters and signs as scans, of the fonts that matplotlib ships.

They take the place of the handwritten digits where a model must not have seen
a digit. Letters and signs that are drawn like a digit or hold one (O, l, Z,
S, %) are left out.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kpu_mm.datasets import stable_hash

_LETTERS = 'ACEFHJKLMNPRTUVWXYacdefhkmnrtuvwxy'
_SIGNS = '!?@#+=<>{}[]*~^'
# Letters of other scripts, for scenes that no training shows.
_SCRIPTS = 'ДЖЛФЦШЫЮЯЖΓΔΘΛΞΠΣΨΩאבגדהחטכלמשთდზკლრქყცԱԲԳԴԷԺԽԾՃ'
_LETTER_FONTS = {
    'train': (
        'DejaVuSans',
        'DejaVuSans-Bold',
        'DejaVuSans-Oblique',
        'DejaVuSerif',
        'DejaVuSerif-BoldItalic',
        'DejaVuSansMono',
        'STIXGeneralBol',
        'cmtt10',
    ),
    'test': ('DejaVuSerif-Bold', 'DejaVuSansMono-BoldOblique', 'cmb10'),
}
# the only font with all these scripts
_SCRIPT_FONTS = ('DejaVuSans', 'DejaVuSans-Bold')
# Shapes of each letter in each font.
_VARIANTS = 6
_HEIGHT = 48  # pixels at which a font is drawn, before it is reduced
_SIDE = 8  # pixels of a scan, as scikit-learn's digits have


def draw_glyphs(kind: str, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Draw all letters and signs, each in several fonts and shapes.

    Equal arguments always give equal scans.

    Args:
        kind: 'letters', of which the splits have different fonts, or
            'scripts', which no training shows; its splits are equal.
        split: 'train' or 'test'.

    Returns:
        Ink in [0, 1], (N, 8, 8) float32; the class of each, (N,) int64; and
        the names of the classes.
    """
    names = tuple(_LETTERS + _SIGNS if kind == 'letters' else dict.fromkeys(_SCRIPTS))
    fonts = _LETTER_FONTS[split] if kind == 'letters' else _SCRIPT_FONTS
    folder = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf'
    random = np.random.default_rng(stable_hash('glyphs', kind, split))
    scans, classes = [], []
    for font in fonts:
        shape = ImageFont.truetype(str(folder / f'{font}.ttf'), _HEIGHT)
        for number, name in enumerate(names):
            for _ in range(_VARIANTS):
                scans.append(_draw(name, shape, random))
                classes.append(number)
    return np.stack(scans), np.array(classes), names


def _draw(name: str, font: ImageFont.FreeTypeFont, random: np.random.Generator) -> np.ndarray:
    """One glyph, sheared, stretched and reduced to the size of a scan."""
    side = 3 * _HEIGHT
    image = Image.new('L', (side, side))
    weight = int(random.integers(3))  # of the stroke, in pixels
    ImageDraw.Draw(image).text(
        (side / 2, side / 2), name, 255, font, anchor='mm', stroke_width=weight
    )
    middle = side / 2
    shear, stretch = random.uniform(-0.25, 0.25), random.uniform(0.8, 1.25)
    # Pillow wants the map from target pixels back, here around the centre.
    image = image.transform(
        image.size,
        Image.Transform.AFFINE,
        (1, shear, -shear * middle, 0, stretch, middle * (1 - stretch)),
        Image.Resampling.BICUBIC,
    )
    ink = image.crop(image.getbbox())
    # A narrow letter stays narrow: it is put on a square first.
    width = max(ink.size)
    square = Image.new('L', (width, width))
    square.paste(ink, ((width - ink.width) // 2, (width - ink.height) // 2))
    small = square.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255
