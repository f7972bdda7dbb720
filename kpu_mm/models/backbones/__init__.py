"""Backbones."""

from .exported import load_exported
from .kpu_backbone import KPUBackbone
from .teacher_backbone import TeacherBackbone
from .vit_backbone import ViTBackbone
