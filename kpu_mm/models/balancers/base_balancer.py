"""What every balancer promises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Balance(NamedTuple):
    """What a balancer makes of the teachers' losses.

    Args:
        loss: What the step goes down, a scalar.
        weights: For each teacher the share with which its mean loss counts
            in the gradient, a scalar without gradient.
    """

    loss: Tensor
    weights: dict[str, Tensor]


class BaseBalancer(nn.Module):
    """Weighs teachers against each other.

    Buffers and parameters are part of the distiller's checkpoints. The
    optimiser trains the parameters, without weight decay.

    Args:
        teachers: Names of all T teachers.
        streams: For each teacher the streams that it sees. Defaults to
            None, each has images of its own.

    Attributes:
        separable: Whether the loss is a sum of what each stream gives by
            itself, as ``backward='per_stream'`` needs it.
        looks_again: Whether :meth:`after_step` wants the same images'
            losses after each step.
    """

    separable = True
    looks_again = False
    no_weight_decay = True

    def __init__(
        self,
        teachers: Sequence[str],
        streams: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        super().__init__()
        self.teachers = tuple(teachers)
        self.streams = dict(streams or {name: (name,) for name in teachers})

    @abstractmethod
    def forward(self, losses: Mapping[str, Tensor]) -> Balance:
        """Weigh and sum.

        Args:
            losses: For some or all teachers, one value per image, (B,); a
                balancer that is not separable needs all.
        """

    def after_step(self, losses: Mapping[str, Tensor]) -> None:
        """Learn from what a step of the optimiser has changed.

        Called after every step in training if ``looks_again``.

        Args:
            losses: What :meth:`forward` was last given, now of the changed
                student: the same images and random numbers.
        """

    def means(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Mean losses of this process.

        Args:
            losses: For all teachers, one value per image, (B,).

        Returns:
            (T,), in the order of the teachers.

        Raises:
            ValueError: If a teacher is missing.
        """
        missing = set(self.teachers) - set(losses)
        if missing:
            raise ValueError(
                f'{type(self).__name__} weighs all teachers against each '
                f'other, but there are no losses of {sorted(missing)}: give '
                'the streams of all teachers.'
            )
        return torch.stack([losses[name].mean() for name in self.teachers])

    def named(self, values: Tensor) -> dict[str, Tensor]:
        """Values by teacher.

        Args:
            values: (T,), in the order of the teachers.
        """
        return dict(zip(self.teachers, values.unbind(), strict=True))
