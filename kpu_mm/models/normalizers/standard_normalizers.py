"""Standardisation: one scale for a whole map, or one for each channel."""

from __future__ import annotations

import torch

from kpu_mm.registry import MODELS
from kpu_mm.structures import Moments

from .base_normalizer import AffineMap, BaseNormalizer


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
        # law of total variance: within the channels + between their means
        between = (moments.mean - mean).square().mean()
        std = (moments.variance.mean() + between).sqrt()
        if not std > 0:
            raise ValueError('its features all have the same value.')
        ones = torch.ones_like(moments.mean)
        return AffineMap(mean * ones, ones / std, std * ones)


@MODELS.register_module()
class StandardNormalizer(BaseNormalizer):
    """Standardization of PHI-S (https://arxiv.org/abs/2410.01680).

    Every channel has mean 0 and variance 1. The arguments are those of
    :class:`BaseNormalizer`.
    """

    dense = False

    def solve(self, moments: Moments) -> AffineMap:
        """Find the map for one output.

        Args:
            moments: Those of its vectors, on the CPU.

        Raises:
            ValueError: If a channel does not vary.
        """
        std = moments.variance.sqrt()
        # `not >` and not `<=`: NaN is refused as well
        if constant := (~(std > 0)).nonzero().flatten().tolist():
            raise ValueError(
                f'channels {constant[:5]} of {len(std)} never change and '
                'have no scale; show more images (num_images), or choose '
                'kpu_mm.PHISNormalizer, which needs none.'
            )
        return AffineMap(moments.mean, 1 / std, std)
