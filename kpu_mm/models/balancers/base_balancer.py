"""What every balancer promises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Balance(NamedTuple):
    """What a balancer makes of the teachers' losses.

    Args:
        loss: What the step goes down, a scalar.
        weights: For each teacher the share with which its mean loss counts
            in it, a scalar without gradient.
    """

    loss: Tensor
    weights: dict[str, Tensor]


class BaseBalancer(nn.Module):
    """Weighs teachers against each other.

    Args:
        teachers: Names of all T teachers.

    Attributes:
        separable: Whether the loss is a sum of what each stream gives by
            itself, as ``backward='per_stream'`` needs it.
    """

    separable = True

    def __init__(self, teachers: Sequence[str]) -> None:
        super().__init__()
        self.teachers = tuple(teachers)

    @abstractmethod
    def forward(self, losses: Mapping[str, Tensor]) -> Balance:
        """Weigh and sum.

        Args:
            losses: For some or all teachers, one value per image, (B,).
        """
