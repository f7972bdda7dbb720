"""Linear centred kernel alignment from sums over the samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class LinearSums(NamedTuple):
    """What HSIC with linear kernels needs to know of n pairs (x_i, y_i).

    The sums of two batches add up to those of both, so that no n x n matrix
    is ever needed.

    Args:
        n: Samples.
        cross: Sum of x_i y_i^T, (C, D).
        x: Sum of x_i, (C,).
        y: Sum of y_i, (D,).
        x_weighted: Sum of |y_i|^2 x_i, (C,).
        y_weighted: Sum of |x_i|^2 y_i, (D,).
        x_norms: Sum of |x_i|^2, a scalar.
        y_norms: Sum of |y_i|^2, a scalar.
        norms: Sum of |x_i|^2 |y_i|^2, a scalar.
    """

    n: int
    cross: Tensor
    x: Tensor
    y: Tensor
    x_weighted: Tensor
    y_weighted: Tensor
    x_norms: Tensor
    y_norms: Tensor
    norms: Tensor


def linear_sums(x: Tensor, y: Tensor) -> LinearSums:
    """Sum over a batch in float64.

    Args:
        x: Features of one model, (N, C).
        y: Features of another of the same samples, (N, D).
    """
    x, y = x.double(), y.double()
    a, b = x.square().sum(1), y.square().sum(1)
    return LinearSums(
        len(x),
        x.T @ y,
        x.sum(0),
        y.sum(0),
        b @ x,
        a @ y,
        a.sum(),
        b.sum(),
        a @ b,
    )


def add_sums(first: LinearSums, second: LinearSums) -> LinearSums:
    """The sums over the samples of both."""
    pairs: Any = zip(first, second, strict=True)
    return LinearSums(*(a + b for a, b in pairs))


def biased_hsic(sums: LinearSums) -> Tensor:
    """HSIC as Kornblith et al. (https://arxiv.org/abs/1905.00414) take it.

    tr(K H L H) / (n - 1)^2 with K = X X^T, L = Y Y^T and the centring matrix
    H = I - 1 1^T / n. Too large by a share that shrinks with n.

    Args:
        sums: Of two samples at least.

    Returns:
        A float64 scalar.
    """
    n = sums.n
    covariance = sums.cross - torch.outer(sums.x, sums.y) / n
    return covariance.square().sum() / (n - 1) ** 2


def unbiased_hsic(sums: LinearSums) -> Tensor:
    """HSIC whose expectation does not depend on the number of samples.

    The estimator of Song et al. (2012,
    https://www.jmlr.org/papers/v13/song12a.html), by which Nguyen et al.
    (https://arxiv.org/abs/2010.15327, equation 3) compare layers over
    minibatches. Below zero by chance where nothing is shared.

    Args:
        sums: Of four samples at least.

    Returns:
        A float64 scalar.
    """
    n = sums.n
    # K and L without their diagonals: tr(KL), 1^T K L 1, 1^T K 1 and 1^T L 1
    trace = sums.cross.square().sum() - sums.norms
    rows = (
        sums.x @ sums.cross @ sums.y
        - sums.x @ sums.x_weighted
        - sums.y @ sums.y_weighted
        + sums.norms
    )
    total_k = sums.x.square().sum() - sums.x_norms
    total_l = sums.y.square().sum() - sums.y_norms
    value = (
        trace + total_k * total_l / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows
    )
    return value / (n * (n - 3))


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """Similarity of two models' features, whatever their widths.

    Linear CKA of Kornblith et al. (https://arxiv.org/abs/1905.00414). Turning
    or scaling a feature space as a whole changes nothing; equal features
    give 1.

    Args:
        x: Features of one model, (N, C).
        y: Features of another of the same samples, (N, D).

    Returns:
        A float64 scalar in [0, 1]; not a number if one of the models says
        the same of all samples.
    """
    hsics = [
        biased_hsic(linear_sums(a, b)) for a, b in ((x, y), (x, x), (y, y))
    ]
    return alignment(*hsics)


def unbiased_linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """:func:`linear_cka` whose parts are :func:`unbiased_hsic`.

    Args:
        x: Features of one model, (N, C), N from 4.
        y: Features of another of the same samples, (N, D).

    Returns:
        A float64 scalar of at most about 1.
    """
    hsics = [
        unbiased_hsic(linear_sums(a, b)) for a, b in ((x, y), (x, x), (y, y))
    ]
    return alignment(*hsics)


def alignment(xy: Tensor, xx: Tensor, yy: Tensor) -> Tensor:
    """Centred kernel alignment from three HSICs.

    Args:
        xy: HSIC of both models.
        xx: HSIC of the first with itself.
        yy: HSIC of the second with itself.
    """
    return xy / (xx * yy).sqrt()
