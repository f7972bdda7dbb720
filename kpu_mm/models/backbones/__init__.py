"""Backbones."""

from .exported import load_exported
from .kpu_backbone import KPUBackbone
from .sentinel import Sentinel

__all__ = ['KPUBackbone', 'Sentinel', 'load_exported']
