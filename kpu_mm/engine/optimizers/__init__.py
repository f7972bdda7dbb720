"""Optimiser wrappers and their construction."""

from .autocast_optim_wrapper import AutocastOptimWrapper
from .layer_decay_constructor import LayerDecayConstructor
from .trainable_constructor import TrainableConstructor

__all__ = [
    'AutocastOptimWrapper',
    'LayerDecayConstructor',
    'TrainableConstructor',
]
