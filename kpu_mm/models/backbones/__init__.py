"""Backbones."""

from .kpu_backbone import KPUBackbone
from .sentinel import Sentinel

__all__ = ['KPUBackbone', 'Sentinel']
