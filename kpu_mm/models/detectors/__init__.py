"""Detectors."""

from .mask_dino import MaskDINO

__all__ = ['MaskDINO']
