"""What crosses module borders."""

from .features import Features
from .moments import Moments, valid_vectors
from .pad_features import pad_features

__all__ = ['Features', 'Moments', 'pad_features', 'valid_vectors']
