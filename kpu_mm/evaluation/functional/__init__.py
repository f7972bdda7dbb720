"""Pure functions of tensors."""

from .cka import (
    LinearSums,
    add_sums,
    alignment,
    biased_hsic,
    linear_cka,
    linear_sums,
    unbiased_hsic,
    unbiased_linear_cka,
)
from .knn import knn_vote

__all__ = [
    'LinearSums',
    'add_sums',
    'alignment',
    'biased_hsic',
    'knn_vote',
    'linear_cka',
    'linear_sums',
    'unbiased_hsic',
    'unbiased_linear_cka',
]
