"""One mean and one scale for a whole map."""

from __future__ import annotations

import torch

from kpu_mm.registry import MODELS
from kpu_mm.structures import Moments

from .affine_map import AffineMap
from .base_normalizer import BaseNormalizer


@MODELS.register_module()
class GlobalStandardNormalizer(BaseNormalizer):
    """Global Standardization of PHI-S (https://arxiv.org/abs/2410.01680).

    All values of an output, whatever their channel, together have mean 0
    and variance 1. The arguments are those of :class:`BaseNormalizer`.
    """

    dense = False

    def solve(self, moments: Moments) -> AffineMap:
        """Find the map for one output.

        Args:
            moments: Those of its vectors, on the CPU.

        Raises:
            ValueError: If nothing varies.
        """
        mean = moments.mean.mean()
        between = (moments.mean - mean).square().mean()
        std = (moments.variance.mean() + between).sqrt()
        if not std > 0:
            raise ValueError('its features all have the same value.')
        ones = torch.ones_like(moments.mean)
        return AffineMap(mean * ones, ones / std, std * ones)
