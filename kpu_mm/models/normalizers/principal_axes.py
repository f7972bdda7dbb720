"""Principal axes of a covariance."""

from __future__ import annotations

import torch
from torch import Tensor


def principal_axes(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Lambda and U of U Lambda U^T, the largest variance first.

    The largest entry of each axis is positive, so that a covariance that
    differs by rounding does not turn axes round.

    Args:
        covariance: (C, C).

    Returns:
        Variances along the axes, (C,), and the axes as columns, (C, C).

    Raises:
        ValueError: If nothing varies.
    """
    variances, axes = torch.linalg.eigh(covariance)
    variances, axes = variances.flip(0).clamp(min=0), axes.flip(1)
    if not variances[0] > 0:
        raise ValueError(
            'its features are all the same; check the images of its stream, '
            'or show more of them (num_images).'
        )
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return variances, axes * largest.sign()
