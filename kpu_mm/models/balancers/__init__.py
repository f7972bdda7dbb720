"""Balancers: losses per image and teacher -> one scalar."""

from .base_balancer import Balance, BaseBalancer
from .equal_balancer import EqualBalancer

__all__ = ['Balance', 'BaseBalancer', 'EqualBalancer']
