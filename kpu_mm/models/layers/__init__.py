"""Layers shared by adapter and heads."""

from .conv_ffn import ConvFFN
from .deform_attention import DeformableAttention, deformable_attention

__all__ = ['ConvFFN', 'DeformableAttention', 'deformable_attention']
