"""Heads of detection models."""

from .mask_dino import (
    FocalClasses,
    LearnedQueries,
    MaskDINOHead,
    MaskDINOPixelDecoder,
    SelectedQueries,
    SoftmaxClasses,
)

__all__ = [
    'FocalClasses',
    'LearnedQueries',
    'MaskDINOHead',
    'MaskDINOPixelDecoder',
    'SelectedQueries',
    'SoftmaxClasses',
]
