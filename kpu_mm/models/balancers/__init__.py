"""Balancers: losses per image and teacher -> one scalar."""

from .base_balancer import (
    AdaLossBalancer,
    Balance,
    BaseBalancer,
    EqualBalancer,
    UncertaintyBalancer,
)
from .famo_balancer import FAMOBalancer, SecondForward
from .teacher_drop_balancer import TeacherDropBalancer
