"""Backbones."""

from .exported import load_exported
from .kpu_backbone import KPUBackbone
from .sentinel import Sentinel
from .teacher_backbone import TeacherBackbone

__all__ = ['KPUBackbone', 'Sentinel', 'TeacherBackbone', 'load_exported']
