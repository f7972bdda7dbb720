"""End of a pipeline: what the collate function takes."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform

from ...registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackImage(BaseTransform):
    """Turn ``img`` into a tensor and drop all else but ``skipped``.

    Required keys: ``img`` (RGB, (H, W, 3) uint8), ``skipped``. Result:
    ``image`` (3, H, W) uint8 tensor, ``skipped``.
    """

    def transform(self, results: dict) -> dict:
        """Pack one image."""
        image = results['img']
        if image.dtype != np.uint8 or image.ndim != 3:
            raise ValueError(
                'PackImage takes (H, W, 3) uint8 and got '
                f'{image.shape} {image.dtype}; models normalise images '
                'themselves, so remove normalising transforms.'
            )
        if image.strides[1] < 0:
            # MMCV flips by a view that OpenCV would copy slowly.
            image = cv2.flip(image[:, ::-1], 1)
        # (H, W, 3) -> (3, H, W)
        planes = np.empty((image.shape[2], *image.shape[:2]), np.uint8)
        cv2.split(image, mv=list(planes))
        return {
            'image': torch.from_numpy(planes),
            'skipped': results['skipped'],
        }
