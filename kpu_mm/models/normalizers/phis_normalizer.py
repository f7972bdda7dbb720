"""PHI-S: one rotation and one scale, every channel standardised."""

from __future__ import annotations

from kpu_mm.registry import MODELS
from kpu_mm.structures import Moments

from .affine_map import AffineMap
from .balanced_rotation import balanced_rotation
from .base_normalizer import BaseNormalizer
from .principal_axes import principal_axes


@MODELS.register_module()
class PHISNormalizer(BaseNormalizer):
    """PCA-Hadamard isotropic standardization, PHI-S.

    PHI-S (https://arxiv.org/abs/2410.01680): y = H U^T (x - mean) / phi with
    the principal axes U, a Hadamard matrix H and phi^2 the mean variance.
    Distances keep their proportions, and every channel has variance 1. For
    a number of channels without a constructed Hadamard matrix, see
    :func:`balanced_rotation`. The arguments are those of
    :class:`BaseNormalizer`.
    """

    def solve(self, moments: Moments) -> AffineMap:
        """Find the map for one output.

        Args:
            moments: Those of its vectors, on the CPU.

        Raises:
            ValueError: If nothing varies.
        """
        variances, axes = principal_axes(moments.covariance)
        rotation = balanced_rotation(variances) @ axes.T
        phi = variances.mean().sqrt()
        return AffineMap(moments.mean, rotation / phi, phi * rotation.T)
