"""Layers shared by adapter, pyramids and heads."""

from .conv_ffn import ConvFFN
from .deform_attention import DeformableAttention, deformable_attention
from .feature_pyramid import FeaturePyramid
from .pyramid_level import PyramidLevel

__all__ = [
    'ConvFFN',
    'DeformableAttention',
    'FeaturePyramid',
    'PyramidLevel',
    'deformable_attention',
]
