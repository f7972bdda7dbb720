"""RasteriseMasks: polygons -> bitmaps."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures.mask import BitmapMasks

from kpu_mm.registry import TRANSFORMS


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
            polygons.to_ndarray().astype(np.uint8),
            polygons.height,
            polygons.width,
        )
        return results
