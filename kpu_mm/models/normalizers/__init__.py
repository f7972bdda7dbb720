"""Normalisers: a teacher's features -> targets that balance teachers."""

from .base_normalizer import AffineMap, BaseNormalizer, fit_normalizers
from .moving_normalizer import MovingNormalizer
from .phis_normalizers import (
    GlobalStandardNormalizer,
    HCANormalizer,
    PCANormalizer,
    PHISNormalizer,
    StandardNormalizer,
    WhiteningNormalizer,
    ZCANormalizer,
)
