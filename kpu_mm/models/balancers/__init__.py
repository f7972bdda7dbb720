"""Balancers: losses per image and teacher -> one scalar."""

from .ada_loss_balancer import AdaLossBalancer
from .base_balancer import Balance, BaseBalancer
from .equal_balancer import EqualBalancer
from .famo_balancer import FAMOBalancer
from .teacher_drop_balancer import TeacherDropBalancer
from .uncertainty_balancer import UncertaintyBalancer

__all__ = [
    'AdaLossBalancer',
    'Balance',
    'BaseBalancer',
    'EqualBalancer',
    'FAMOBalancer',
    'TeacherDropBalancer',
    'UncertaintyBalancer',
]
