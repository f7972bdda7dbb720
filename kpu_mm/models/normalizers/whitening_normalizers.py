"""Whitening: variance 1 along every direction, up to a rotation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Moments

from .base_normalizer import AffineMap, BaseNormalizer
from .phis_normalizer import balanced_rotation, principal_axes


class WhiteningNormalizer(BaseNormalizer):
    """y = Q Lambda^(-1/2) U^T (x - mean), of which a subclass chooses Q.

    Kessy et al. (https://doi.org/10.1080/00031305.2016.1277159). Directions
    of little variance are scaled up, so the error of float32 grows with the
    ratio of the largest deviation to the smallest.

    Args:
        summary_channels: Channels of the teacher's summary; None for a
            teacher without one.
        channels: Channels of each of its maps.
        summary: Normalise the summary too. Defaults to True.
        min_variance: Smaller variances count as this share of the largest.
            Defaults to 1e-10.
    """

    def __init__(
        self,
        summary_channels: int | None,
        channels: Sequence[int],
        summary: bool = True,
        min_variance: float = 1e-10,
    ) -> None:
        super().__init__(summary_channels, channels, summary)
        self.min_variance = min_variance

    @abstractmethod
    def rotation(self, variances: Tensor, axes: Tensor) -> Tensor:
        """Choose Q.

        Args:
            variances: Lambda, (C,), the largest first.
            axes: U, (C, C).
        """

    def solve(self, moments: Moments) -> AffineMap:
        """Find the map for one output.

        Args:
            moments: Those of its vectors, on the CPU.

        Raises:
            ValueError: If there are too few vectors to know all directions.
        """
        channels = len(moments.mean)
        # n vectors span n - 1 directions; the others would have variance 0
        if moments.count <= channels:
            raise ValueError(
                f'{moments.count} vectors do not tell the variances of '
                f'{channels} channels; show more images (num_images), or '
                'choose kpu_mm.PHISNormalizer, which can do with fewer.'
            )
        variances, axes = principal_axes(moments.covariance)
        std = variances.clamp(min=self.min_variance * variances[0]).sqrt()
        rotation = self.rotation(variances, axes)
        # A vector scales columns: rotation / std is Q Lambda^(-1/2).
        weight = rotation / std @ axes.T
        return AffineMap(moments.mean, weight, axes * std @ rotation.T)


@MODELS.register_module()
class PCANormalizer(WhiteningNormalizer):
    """PCA whitening, Q = I: channels are the principal axes, in order.

    The arguments are those of :class:`WhiteningNormalizer`.
    """

    def rotation(self, variances: Tensor, axes: Tensor) -> Tensor:
        """Choose I.

        Args:
            variances: Lambda, (C,), the largest first.
            axes: U, (C, C).
        """
        return torch.eye(len(variances), dtype=variances.dtype)


@MODELS.register_module()
class ZCANormalizer(WhiteningNormalizer):
    """ZCA whitening, Q = U: the whitening closest to the features.

    The arguments are those of :class:`WhiteningNormalizer`.
    """

    def rotation(self, variances: Tensor, axes: Tensor) -> Tensor:
        """Choose U.

        Args:
            variances: Lambda, (C,), the largest first.
            axes: U, (C, C).
        """
        return axes


@MODELS.register_module()
class HCANormalizer(WhiteningNormalizer):
    """Hadamard whitening: an error in any channel weighs the same.

    PHI-S (https://arxiv.org/abs/2410.01680), with the Q of
    :func:`balanced_rotation` instead of a Hadamard matrix. The arguments
    are those of :class:`WhiteningNormalizer`.
    """

    def rotation(self, variances: Tensor, axes: Tensor) -> Tensor:
        """Choose the rotation that balances the variances.

        Args:
            variances: Lambda, (C,), the largest first.
            axes: U, (C, C).
        """
        return balanced_rotation(variances)
