"""PHI-S: one rotation and one scale, every channel standardised."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Moments

from .base_normalizer import AffineMap, BaseNormalizer


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

    The Hartley transform spreads the variances almost evenly. From there,
    each rotation of two axes brings one of them to the mean exactly, as in
    Davies and Higham (https://doi.org/10.1023/A:1022384216930).

    Args:
        variances: Along the axes now, (C,) float64.

    Returns:
        (C, C) float64.
    """
    order = len(variances)
    places = torch.arange(order, dtype=torch.float64)
    angles = 2 * math.pi / order * torch.outer(places, places)
    rotation = (angles.cos() + angles.sin()) / math.sqrt(order)
    covariance = rotation * variances @ rotation.T
    mean = variances.mean()
    # One axis is done after each turn; the last then has the mean as well.
    for _ in range(order - 1):
        excess = covariance.diagonal() - mean
        low, high = int(excess.argmin()), int(excess.argmax())
        turn = _turn(excess[low], excess[high], covariance[low, high])
        axes = [low, high]
        rotation[axes] = turn @ rotation[axes]
        covariance[axes] = turn @ covariance[axes]
        covariance[:, axes] = covariance[:, axes] @ turn.T
    return rotation


def _turn(low: Tensor, high: Tensor, shared: Tensor) -> Tensor:
    """The rotation of two axes after which the first has no excess.

    Args:
        low: Its excess over the mean variance, not above 0.
        high: That of the second axis, not below 0.
        shared: Their covariance.

    Returns:
        (2, 2).
    """
    # high t^2 + 2 shared t + low = 0 for the tangent t: the solution that
    # does not subtract nearly equal numbers
    root = (shared.square() - low * high).clamp(min=0).sqrt()
    divisor = shared + torch.copysign(root, shared)
    # root = 0: both axes have the mean already, so the angle is 0
    tangent = -low / divisor.where(root > 0, torch.inf)
    cosine = 1 / (1 + tangent.square()).sqrt()
    sine = tangent * cosine
    return torch.stack(
        [torch.stack([cosine, sine]), torch.stack([-sine, cosine])]
    )
