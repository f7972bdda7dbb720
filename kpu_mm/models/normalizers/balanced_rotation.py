"""A rotation after which every axis has the same variance."""

from __future__ import annotations

import math

import torch
from mmengine.logging import print_log
from torch import Tensor

from .hadamard import factors, hadamard


def balanced_rotation(variances: Tensor) -> Tensor:
    """An orthogonal R with a constant diagonal of R diag(variances) R^T.

    A Hadamard matrix over the root of its order does this whatever the
    variances, PHI-S (https://arxiv.org/abs/2410.01680). Where none is
    constructed, rotations of two axes at a time balance these variances.

    Args:
        variances: Along the axes now, (C,) float64.

    Returns:
        (C, C) float64.
    """
    order = len(variances)
    if factors(order) is not None:
        return hadamard(order) / math.sqrt(order)
    print_log(
        f'No Hadamard matrix of order {order} is constructed: rotations of '
        'two axes at a time balance the variances instead.',
        logger='current',
    )
    return balance(variances)


def balance(variances: Tensor) -> Tensor:
    """Balance variances without a Hadamard matrix, for any order.

    From the Hartley transform, which spreads them almost evenly, on: each
    rotation brings one axis to the mean exactly, as in Davies and Higham
    (https://doi.org/10.1023/A:1022384216930).

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
    # does not subtract like from like
    root = (shared.square() - low * high).clamp(min=0).sqrt()
    divisor = shared + torch.copysign(root, shared)
    tangent = -low / divisor.where(root > 0, torch.inf)
    cosine = 1 / (1 + tangent.square()).sqrt()
    sine = tangent * cosine
    return torch.stack(
        [torch.stack([cosine, sine]), torch.stack([-sine, cosine])]
    )
