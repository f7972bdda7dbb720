"""Distillers."""

from .kpu_distiller import KPUDistiller

__all__ = ['KPUDistiller']
