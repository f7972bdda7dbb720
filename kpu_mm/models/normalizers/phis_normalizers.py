"""The normalisers of PHI-S (https://arxiv.org/abs/2410.01680)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

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
                f'channels {constant[:5]} of {len(std)} never change and have no scale; show more '
                'images (num_images), or choose kpu_mm.PHISNormalizer, which needs none.'
            )
        return AffineMap(moments.mean, 1 / std, std)


@MODELS.register_module()
class PHISNormalizer(BaseNormalizer):
    """PCA-Hadamard isotropic standardization, PHI-S.

    PHI-S (https://arxiv.org/abs/2410.01680): y = R U^T (x - mean) / phi with
    the principal axes U, a rotation R after which all channels have the same
    variance, and phi^2 the mean variance. Distances keep their proportions,
    and every channel has variance 1. The paper's R is a Hadamard matrix;
    ours is :func:`balanced_rotation`, which exists for every number of
    channels. The arguments are those of :class:`BaseNormalizer`.
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
        # The inverse of a rotation is its transpose: nothing is inverted.
        return AffineMap(moments.mean, rotation / phi, phi * rotation.T)


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


def principal_axes(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Lambda and U of U Lambda U^T, the largest variance first.

    The largest entry of each axis is positive, so that rounding in the
    covariance does not flip the sign of an axis.

    Args:
        covariance: (C, C).

    Returns:
        Variances along the axes, (C,), and the axes as columns, (C, C).

    Raises:
        ValueError: If nothing varies.
    """
    variances, axes = torch.linalg.eigh(covariance)
    # eigh sorts upwards, and rounding may leave variances just below 0
    variances, axes = variances.flip(0).clamp(min=0), axes.flip(1)
    if not variances[0] > 0:
        raise ValueError(
            'its features are all the same; check the images of its stream, '
            'or show more of them (num_images).'
        )
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return variances, axes * largest.sign()


def balanced_rotation(variances: Tensor) -> Tensor:
    """An orthogonal R with a constant diagonal of R diag(variances) R^T.

    R is the real Fourier basis of the axes j = 0 ... C - 1, with phases p_k.
    A wave sqrt(2 / C) cos(2 pi k j / C + p_k) has the variance

        1 / C sum_j v_j (1 + cos(4 pi k j / C + 2 p_k)),

    which is the mean plus the real part of exp(2 i p_k) V_2k / C, with the
    Fourier coefficients V_m = sum_j v_j exp(2 pi i m j / C). The phase
    p_k = pi / 4 - arg(V_2k) / 2 makes this part 0, for the sine of the same
    frequency, too. The constant and the alternating row (even C) have the
    mean variance without a phase.

    Args:
        variances: Along the axes now, (C,) float64. If the largest comes
            first, R is continuous in them: V_2k then stays away from the
            negative real axis, where its angle jumps.

    Returns:
        (C, C) float64.
    """
    order = len(variances)
    places = torch.arange(order)
    frequencies = torch.arange(1, (order + 1) // 2)
    # torch's transform is the complex conjugate of V
    angles = -torch.fft.fft(variances)[2 * frequencies % order].angle()
    phases = math.pi / 4 - angles / 2
    # (K, C); whole turns are taken off as integers, without rounding
    turns = torch.outer(frequencies, places) % order
    waves = 2 * math.pi / order * turns.double() + phases[:, None]
    root = math.sqrt(2)
    rows = [torch.ones(1, order), root * waves.cos(), root * waves.sin()]
    if order % 2 == 0:
        rows.append(1 - 2 * (places[None] % 2))
    return torch.cat(rows) / math.sqrt(order)
