"""Losses; each gives one value per image."""

from .align_loss import (
    AlignLoss,
    cosine_loss,
    masked_mean,
    smooth_l1_loss,
    squared_error,
)

__all__ = [
    'AlignLoss',
    'cosine_loss',
    'masked_mean',
    'smooth_l1_loss',
    'squared_error',
]
