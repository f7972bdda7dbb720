"""Balancers: losses per image and teacher -> one scalar."""

from .base_balancer import Balance, BaseBalancer, EqualBalancer
from .famo_balancer import FAMOBalancer
from .scale_balancers import AdaLossBalancer, UncertaintyBalancer
from .teacher_drop_balancer import TeacherDropBalancer

__all__ = [
    'AdaLossBalancer',
    'Balance',
    'BaseBalancer',
    'EqualBalancer',
    'FAMOBalancer',
    'TeacherDropBalancer',
    'UncertaintyBalancer',
]
