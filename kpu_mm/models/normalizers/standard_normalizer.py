"""A mean and a scale for each channel."""

from __future__ import annotations

from kpu_mm.registry import MODELS
from kpu_mm.structures import Moments

from .affine_map import AffineMap
from .base_normalizer import BaseNormalizer


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
        if constant := (~(std > 0)).nonzero().flatten().tolist():
            raise ValueError(
                f'channels {constant[:5]} of {len(std)} never change and '
                'have no scale; show more images (num_images), or choose '
                'kpu_mm.PHISNormalizer, which needs none.'
            )
        return AffineMap(moments.mean, 1 / std, std)
