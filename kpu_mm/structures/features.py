"""Features: the only currency between models, projectors and losses."""

from __future__ import annotations

from collections.abc import Iterator
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

    def outputs(self) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """Each output that there is, with its name and its mask.

        Yields:
            'summary', (B, D), None, then 'map 0', (B, C_0, H_0, W_0), its
            mask, and so on.
        """
        if self.summary is not None:
            yield 'summary', self.summary, None
        masks = self.masks or (None,) * len(self.maps)
        for i, (m, mask) in enumerate(zip(self.maps, masks, strict=True)):
            yield f'map {i}', m, mask
