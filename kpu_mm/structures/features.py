"""Features: the only currency between models, projectors and losses."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Features(NamedTuple):
    """What a vision model says of a batch of images.

    Args:
        summary: One vector an image, (B, D); None for a model without one.
        maps: Spatial maps from fine to coarse, each (B, C_i, H_i, W_i).
        masks: For each map, which of its cells show the image and not
            padding, each (B, 1, H_i, W_i) bool; None where all cells do.
    """

    summary: Tensor | None
    maps: tuple[Tensor, ...]
    masks: tuple[Tensor, ...] | None = None
