"""Layers shared by adapter, pyramids and heads."""

from .conv_ffn import ConvFFN
from .deform_attention import DeformableAttention, deformable_attention
from .pyramid_level import PyramidLevel

__all__ = [
    'ConvFFN',
    'DeformableAttention',
    'PyramidLevel',
    'deformable_attention',
]
