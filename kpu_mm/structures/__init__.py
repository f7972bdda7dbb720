"""What crosses module borders."""

from .features import Features
from .pad_features import pad_features

__all__ = ['Features', 'pad_features']
