"""The contract of students and teachers: raw images in, features out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor

from kpu_mm.structures import Features


class ImageSizeError(ValueError):
    """An encoder does not take images of this size."""


@runtime_checkable
class Encoder(Protocol):
    """What every student backbone and every teacher offers.

    An encoder owns its input: it resizes and normalises raw images itself,
    so that the same batch can be given to models of different training.
    """

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the input per cell of each map, fine to coarse."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map."""

    @property
    def summary_channels(self) -> int | None:
        """Channels of the summary; None for an encoder without one."""

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Summary and maps of a batch of raw images.

        Args:
            images: RGB in [0, 255], uint8 or float, (B, 3, H, W).
            mask: True where a pixel is real and not padding, (B, H, W)
                bool; None if all are. Defaults to None.

        Returns:
            Summary (B, D) or None, and maps (B, C_i, H_i, W_i); with masks
            of the maps, each (B, 1, H_i, W_i) bool, if ``mask`` is given.
        """


def nearest_size(height: int, width: int, patch: int) -> tuple[int, int]:
    """The multiples of a patch that are closest to a size, one at least.

    Args:
        height: Height of an image.
        width: Width of an image.
        patch: Side of a patch.

    Returns:
        Height and width; half a patch rounds up.
    """
    # in whole numbers, which an exported graph can keep symbolic
    rows = max(1, (height + patch // 2) // patch)
    columns = max(1, (width + patch // 2) // patch)
    return rows * patch, columns * patch


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Lay out patch tokens as a map.

    Args:
        tokens: (B, N, C), row by row.
        grid: Rows and columns of patches, N in all.

    Returns:
        (B, C, H, W).
    """
    # (B, N, C) -> (B, C, N) -> (B, C, H, W)
    return tokens.transpose(1, 2).unflatten(2, grid)


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Bring a mask to another size by the nearest pixel.

    Args:
        mask: (B, H, W) bool.
        size: Target height and width.

    Returns:
        (B, h, w) bool.
    """
    # Nearest, as transformers' GroundingDINO does: its own masks of the
    # maps and ours must agree. Interpolation does not take bool.
    resized = F.interpolate(mask[:, None].float(), tuple(size))
    return resized[:, 0].bool()


def level_masks(maps: Sequence[Tensor], mask: Tensor | None) -> tuple[Tensor, ...] | None:
    """Bring a mask of pixels to the size of each map, by the nearest pixel.

    Args:
        maps: Each (B, C_i, H_i, W_i).
        mask: (B, H, W) bool; None if every pixel is real.

    Returns:
        For each map (B, 1, H_i, W_i) bool; None for None.
    """
    if mask is None:
        return None
    return tuple(resize_mask(mask, m.shape[-2:])[:, None] for m in maps)
