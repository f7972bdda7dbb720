"""Balancers: losses per image and teacher -> one scalar."""

from .equal_balancer import EqualBalancer

__all__ = ['EqualBalancer']
