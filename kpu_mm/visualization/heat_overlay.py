"""A map of numbers as colours over an image."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np


def heat_overlay(
    image: np.ndarray,
    heat: np.ndarray,
    low: float,
    high: float,
    opacity: float = 0.6,
) -> np.ndarray:
    """Lay a heat map over an image, from blue to red.

    Args:
        image: RGB uint8, (H, W, 3).
        heat: (H, W).
        low: What is dark blue, and all below.
        high: What is dark red, and all above.
        opacity: Share of the colour in the picture, in [0, 1]. Defaults to
            0.6.

    Returns:
        RGB uint8, (H, W, 3).
    """
    span = high - low or 1.0  # of a heat map that is the same all over
    values = ((heat - low) / span).clip(0, 1)
    colours = mpl.colormaps['turbo'](values)[..., :3] * 255  # (H, W, 3)
    mixed = opacity * colours + (1 - opacity) * image
    return mixed.round().astype(np.uint8)
