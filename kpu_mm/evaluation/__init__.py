"""Evaluation."""

from .functional import knn_vote

__all__ = ['knn_vote']
