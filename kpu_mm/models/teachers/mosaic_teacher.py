"""MosaicTeacher: many small images for one pass of an expensive teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from ..encoder import level_masks
from .base_teacher import BaseTeacher, build_teacher


@MODELS.register_module()
class MosaicTeacher(BaseTeacher):
    """A teacher of one size only, which gets smaller images side by side.

    Mosaic augmentation of RADIOv2.5 (https://arxiv.org/abs/2412.07679): as
    many images as fit into k rows and k columns of the teacher's input are
    its one image, and its maps are cut into those of the images again. A
    batch of 432 x 432 gives SAM 2 x 2 images with 80 pixels of padding
    beside each, one of 256 x 256 gives it 4 x 4 and one of 1024 x 1024 each
    image alone. The student gets the images as they are.

    Each image begins where a cell of the teacher's maps begins (not given in
    the paper), so that none of them is interpolated; padding is zero after
    normalisation. A summary would be one of several images: there is none.

    Args:
        teacher: Config of a teacher.
        side: Height and width of its input. Defaults to 1024.

    Raises:
        ValueError: If the teacher takes other sizes, or the config is that
            of no teacher.
    """

    def __init__(self, teacher: Mapping[str, Any], side: int = 1024) -> None:
        inner = build_teacher('mosaic', teacher)
        super().__init__(inner.mean.flatten().tolist(), inner.std.flatten().tolist())
        cell = max(inner.strides)
        if inner.input_size(side, side) != (side, side) or side % cell:
            raise ValueError(
                f'side={side}: the teacher resizes such images to {inner.input_size(side, side)}, '
                f'and a cell of its coarsest map has {cell} pixels; choose a size that it takes.'
            )
        self.teacher = inner
        self.side = side
        self.summary_channels = None
        self.channels = inner.channels
        self.strides = inner.strides

    def per_row(self, height: int, width: int) -> int:
        """How many images stand in a row, and in a column.

        Args:
            height: Height of an image.
            width: Width of an image.

        Raises:
            ValueError: If an image is too large, or ends within a cell.
        """
        cell = max(self.strides)
        if max(height, width) > self.side or height % cell or width % cell:
            raise ValueError(
                f'images of {height} x {width} pixels do not fit a mosaic of {self.side} x '
                f'{self.side}: sides are multiples of {cell} up to {self.side}.'
            )
        # a tile is whole cells, too, so that no map is interpolated
        most = self.side // max(height, width)
        fits = [k for k in range(1, most + 1) if self.side % (k * cell) == 0]
        return fits[-1]

    @torch.no_grad()
    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Summary and maps of raw images, as :meth:`encode` gives them.

        Args:
            images: Raw RGB in [0, 255], uint8 or float, (B, 3, H, W).
            mask: True where a pixel is real and not padding, (B, H, W)
                bool; None if all are. Defaults to None.

        Returns:
            Maps, (B, C_i, H / stride, W / stride), no summary; with masks if
            ``mask`` is given.
        """
        height, width = images.shape[-2:]
        k = self.per_row(height, width)
        tile_side = self.side // k
        valid = None
        # Without padding the teacher need not be given a mask.
        whole = height == width == tile_side and len(images) % (k * k) == 0
        if mask is not None or not whole:
            real = mask
            if real is None:
                real = torch.ones_like(images[:, 0], dtype=torch.bool)
            valid = tile(real[:, None], k, tile_side)[:, 0]
        features = self.teacher(tile(images, k, tile_side), valid)
        maps = []
        for m, stride in zip(features.maps, self.strides, strict=True):
            # a tile's padding lies right and below, and is cut off
            parts = untile(m, k)[: len(images)]  # (B, C, h, w)
            maps.append(parts[..., : height // stride, : width // stride])
        return Features(None, tuple(maps), level_masks(maps, mask))

    def extract(self, images: Tensor, mask: Tensor | None) -> Features:
        """Run the teacher on whole inputs of its own.

        Args:
            images: Normalised images, (B, 3, H, W).
            mask: Real pixels, (B, H, W) bool, or None.

        Returns:
            The maps (B, C, H, W).
        """
        maps = self.teacher.extract(images, mask).maps
        return Features(None, maps)


def tile(images: Tensor, k: int, side: int) -> Tensor:
    """Lay out images in mosaics, row by row, each in the corner of a tile.

    Args:
        images: (B, C, H, W); zeros stand in for what is missing.
        k: Tiles in a row and in a column.
        side: Pixels of a tile, H and W at least.

    Returns:
        (ceil(B / k^2), C, k * side, k * side).
    """
    batch, channels, height, width = images.shape
    count = -(-batch // (k * k))
    tiles = images.new_zeros(count * k * k, channels, side, side)
    tiles[:batch, :, :height, :width] = images
    # (N, row, column, C, y, x) -> (N, C, row, y, column, x)
    grid = tiles.unflatten(0, (count, k, k)).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(count, channels, k * side, k * side)


def untile(m: Tensor, k: int) -> Tensor:
    """Cut maps of mosaics into those of their tiles.

    Args:
        m: (N, C, H, W), H and W multiples of k.
        k: Tiles in a row and in a column.

    Returns:
        (N * k^2, C, H / k, W / k), in the order that :func:`tile` took.
    """
    # (N, C, row, y, column, x) -> (N, row, column, C, y, x)
    grid = m.unflatten(3, (k, -1)).unflatten(2, (k, -1))
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
