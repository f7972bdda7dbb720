"""What crosses module borders."""

from .features import Features

__all__ = ['Features']
