"""Optimiser wrappers and their construction."""

from .autocast_optim_wrapper import AutocastOptimWrapper
from .trainable_constructor import TrainableConstructor

__all__ = ['AutocastOptimWrapper', 'TrainableConstructor']
