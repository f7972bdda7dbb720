"""Boxes of masks, for all queries at once."""

from __future__ import annotations

import torch
from torch import Tensor

BOX_INITS = ('no', 'bitmask', 'mask2box')


def mask_to_box(masks: Tensor, box_init: str) -> Tensor:
    """Boxes (cx, cy, w, h) of binary masks, over their grid.

    Mask DINO (https://arxiv.org/abs/2206.02777), section 3.5. 'bitmask'
    counts the last row and column in and gives zeros for an empty mask;
    'mask2box' does neither: an empty mask gets a far centre and a negative
    size, which become 1 and 0 once clamped.

    Args:
        masks: (..., h, w) bool.
        box_init: 'bitmask' or 'mask2box'.

    Returns:
        (..., 4) float32.
    """
    far = torch.finfo(torch.float32).max / 4
    sides = []
    for occupied in (masks.any(-2), masks.any(-1)):
        size = occupied.shape[-1]
        cells = torch.arange(
            size, dtype=torch.float32, device=masks.device
        ).expand_as(occupied)
        low = cells.masked_fill(~occupied, far).amin(-1)
        high = cells.masked_fill(~occupied, 0).amax(-1)
        if box_init == 'bitmask':
            found = occupied.any(-1)
            low = low.where(found, 0)
            high = (high + 1).where(found, 0)
        sides.append((low / size, high / size))
    (left, right), (top, bottom) = sides
    return torch.stack(
        (
            (left + right) / 2,
            (top + bottom) / 2,
            right - left,
            bottom - top,
        ),
        -1,
    )
