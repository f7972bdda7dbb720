"""DiagonalCrop: a random window on the image's diagonal."""

from __future__ import annotations

import numpy as np
from mmcv.transforms.utils import cache_randomness
from mmdet.datasets.transforms import RandomCrop

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
