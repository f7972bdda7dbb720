"""Transforms of torchvision in a pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torchvision.transforms import v2

from ...registry import TRANSFORMS


@TRANSFORMS.register_module()
class TorchvisionTransform(BaseTransform):
    """One of torchvision's image transforms, applied to some of the images.

    Required key: ``img`` (RGB, (H, W, 3) uint8), which is modified.

    Args:
        name: Name of a class in ``torchvision.transforms.v2`` that keeps
            images uint8, such as 'ColorJitter' or 'GaussianBlur'.
        prob: Share of the images. Defaults to 1.0.
        **options: Arguments of the class.

    Raises:
        ValueError: If torchvision has no such transform, or ``prob`` is not
            in [0, 1].
    """

    def __init__(self, name: str, prob: float = 1.0, **options: Any) -> None:
        kind = getattr(v2, name, None)
        if not isinstance(kind, type) or not issubclass(kind, v2.Transform):
            raise ValueError(
                f'torchvision.transforms.v2 has no transform {name!r}.'
            )
        if not 0 <= prob <= 1:
            raise ValueError(f'prob={prob}: a share is in [0, 1].')
        self.apply = kind(**options)
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Change the image, or leave it."""
        if float(torch.rand(())) >= self.prob:
            return results
        image = np.ascontiguousarray(results['img'])
        # (H, W, 3) -> (3, H, W) and back
        changed = self.apply(torch.from_numpy(image).permute(2, 0, 1))
        results['img'] = changed.permute(1, 2, 0).contiguous().numpy()
        return results
