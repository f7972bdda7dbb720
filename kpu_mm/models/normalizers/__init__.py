"""Normalisers: a teacher's features -> targets that balance teachers."""

from .affine_map import AffineMap
from .base_normalizer import BaseNormalizer
from .global_standard_normalizer import GlobalStandardNormalizer
from .phis_normalizer import PHISNormalizer
from .standard_normalizer import StandardNormalizer
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
