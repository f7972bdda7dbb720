"""Models: backbones, teachers, projectors, losses, balancers, distillers."""

from .backbones import KPUBackbone, Sentinel
from .balancers import EqualBalancer
from .distillers import KPUDistiller
from .losses import AlignLoss
from .projectors import MLPProjector

__all__ = [
    'AlignLoss',
    'EqualBalancer',
    'KPUBackbone',
    'KPUDistiller',
    'MLPProjector',
    'Sentinel',
]
