"""Transforms of annotated images; they import MMDetection."""

from .diagonal_crop import DiagonalCrop
from .rasterise_masks import RasteriseMasks

__all__ = ['DiagonalCrop', 'RasteriseMasks']
