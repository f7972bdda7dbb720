"""Projectors between feature spaces."""

from .exported import load_projectors
from .mlp_projector import MLPProjector
from .resize import resize

__all__ = ['MLPProjector', 'load_projectors', 'resize']
