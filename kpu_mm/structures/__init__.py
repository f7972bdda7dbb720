"""What crosses module borders."""

from .features import Features, pad_features

__all__ = ['Features', 'pad_features']
