"""Heads of detection models."""

from .mask_dino import (
    FocalClasses,
    LearnedQueries,
    MaskDINO,
    MaskDINOHead,
    MaskDINOPixelDecoder,
    SelectedQueries,
    SoftmaxClasses,
)

__all__ = [
    'FocalClasses',
    'LearnedQueries',
    'MaskDINO',
    'MaskDINOHead',
    'MaskDINOPixelDecoder',
    'SelectedQueries',
    'SoftmaxClasses',
]
