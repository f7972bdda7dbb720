"""Pure functions of tensors."""

from .knn import knn_vote

__all__ = ['knn_vote']
