"""Normalisers: a teacher's features -> targets that balance teachers."""

from .base_normalizer import AffineMap, BaseNormalizer
from .phis_normalizer import PHISNormalizer
from .standard_normalizers import GlobalStandardNormalizer, StandardNormalizer
from .whitening_normalizers import (
    HCANormalizer,
    PCANormalizer,
    WhiteningNormalizer,
    ZCANormalizer,
)

__all__ = [
    'AffineMap',
    'BaseNormalizer',
    'GlobalStandardNormalizer',
    'HCANormalizer',
    'PCANormalizer',
    'PHISNormalizer',
    'StandardNormalizer',
    'WhiteningNormalizer',
    'ZCANormalizer',
]
