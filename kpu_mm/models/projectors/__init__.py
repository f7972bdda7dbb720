"""Projectors between feature spaces."""

from .exported import load_projectors
from .ladder_projector import LadderProjector
from .mlp_projector import MLPProjector
from .resize import resize
from .teacher_head import TeacherHead

__all__ = [
    'LadderProjector',
    'MLPProjector',
    'TeacherHead',
    'load_projectors',
    'resize',
]
