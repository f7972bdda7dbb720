"""Transforms of annotated images; they import MMDetection."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.datasets.transforms import RandomCrop
from mmdet.structures.mask import BitmapMasks

from kpu_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class DiagonalCrop(RandomCrop):
    """Random crop whose one random factor sets both offsets.

    The crop of large-scale jittering (https://arxiv.org/abs/2012.07177) in
    the code that Mask DINO was trained with. Takes the arguments of
    MMDetection's ``RandomCrop``, which draws the offsets one by one.
    """

    @cache_randomness
    def _rand_offset(self, margin: tuple[int, int]) -> tuple[int, int]:
        factor = np.random.uniform()
        height, width = margin
        return round(height * factor), round(width * factor)


@TRANSFORMS.register_module()
class RasteriseMasks(BaseTransform):
    """Draw masks that were resized and cropped as polygons.

    Polygons keep boxes exact through the pipeline. Drawn here, in the
    loader's workers, they cost the training process nothing.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``gt_masks``.

        Args:
            results: With MMDetection's ``PolygonMasks``.
        """
        polygons = results['gt_masks']
        results['gt_masks'] = BitmapMasks(
            polygons.to_ndarray().astype(np.uint8), polygons.height, polygons.width
        )
        return results
