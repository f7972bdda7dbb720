"""AffineMap: from a teacher's space into a normalised one, and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AffineMap(nn.Module):
    """y = W (x - m), with its inverse, kept as buffers.

    Args:
        mean: m, (C,).
        weight: W, (C, C), or its diagonal, (C,), where there is no more.
        inverse: That of ``weight``, in the same form.
    """

    mean: Tensor
    weight: Tensor
    inverse: Tensor

    def __init__(self, mean: Tensor, weight: Tensor, inverse: Tensor) -> None:
        super().__init__()
        for name, value in dict(
            mean=mean, weight=weight, inverse=inverse
        ).items():
            self.register_buffer(name, value.float())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise vectors, (..., C), in the buffers' precision."""
        return times(self.weight, x.to(self.mean.dtype) - self.mean)

    def invert(self, y: Tensor) -> Tensor:
        """Bring normalised vectors, (..., C), back to the teacher's space."""
        return times(self.inverse, y.to(self.mean.dtype)) + self.mean

    @torch.no_grad()
    def fold_into(self, linear: nn.Linear) -> None:
        """Let a layer give x where it gave y, at no cost at inference.

        PHI-S (https://arxiv.org/abs/2410.01680), appendix A.6.

        Args:
            linear: The layer, (..., D) -> (..., C), changed in place.
        """
        inverse = self.inverse.double()
        # The columns of a layer's weight are vectors of its output's space.
        weight = times(inverse, linear.weight.double().T).T
        bias = times(inverse, linear.bias.double()) + self.mean.double()
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)


def times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Apply a matrix, or the diagonal of one, to each vector.

    Args:
        matrix: (C, C), or a diagonal, (C,).
        vectors: (..., C).

    Returns:
        (..., C).
    """
    if matrix.ndim == 1:
        return vectors * matrix
    return F.linear(vectors, matrix)
