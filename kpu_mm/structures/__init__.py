"""What crosses module borders."""

from .features import Features
from .moments import Moments, valid_vectors

__all__ = ['Features', 'Moments', 'valid_vectors']
