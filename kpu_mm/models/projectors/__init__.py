"""Projectors between feature spaces."""

from .mlp_projector import MLPProjector
from .resize import resize

__all__ = ['MLPProjector', 'resize']
