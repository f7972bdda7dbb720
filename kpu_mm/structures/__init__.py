"""What crosses module borders."""

from .features import Features, bilinear, resize_like
from .moments import Moments, valid_vectors

__all__ = [
    'Features',
    'Moments',
    'bilinear',
    'resize_like',
    'valid_vectors',
]
