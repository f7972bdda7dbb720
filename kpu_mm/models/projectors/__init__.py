"""Projectors between feature spaces."""

from .exported import load_projectors
from .mlp_projector import MLPProjector
from .resize import resize
from .teacher_head import TeacherHead

__all__ = ['MLPProjector', 'TeacherHead', 'load_projectors', 'resize']
