"""Base of the balancers, and equal weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kpu_mm.registry import MODELS


class Balance(NamedTuple):
    """The balanced loss and the weights behind it.

    Args:
        loss: What the optimiser minimises, a scalar.
        weights: For each teacher the weight of its mean loss in the
            gradient, a scalar without gradient.
    """

    loss: Tensor
    weights: dict[str, Tensor]


class BaseBalancer(nn.Module):
    """Weighs teachers against each other.

    Buffers and parameters are part of the distiller's checkpoints. The
    optimiser trains the parameters, without weight decay.

    Args:
        teachers: Names of all T teachers.
        streams: For each teacher the streams whose images it gets. Defaults
            to None, one of its own.

    Attributes:
        separable: Whether the loss is a sum over streams, as
            ``backward='per_stream'`` needs it.
        needs_second_loss: Whether :meth:`after_step` needs the losses of
            the same images after each step.
    """

    separable = True
    needs_second_loss = False
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
        """Update the weights from the losses after an optimiser step.

        Called after every step in training if ``needs_second_loss``.

        Args:
            losses: Losses of the updated student for the images of the last
                :meth:`forward`, with the same random numbers.
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


@MODELS.register_module()
class EqualBalancer(BaseBalancer):
    """1/T of each teacher's mean over its images.

    KPU (https://arxiv.org/abs/2508.14707). The arguments are those of
    :class:`BaseBalancer`.
    """

    def forward(self, losses: Mapping[str, Tensor]) -> Balance:
        """Weigh and sum.

        Args:
            losses: For some or all teachers, one value per image, (B,).
        """
        means = torch.stack([loss.mean() for loss in losses.values()])
        # All T teachers, not those given: one call may bring one stream.
        weight = means.new_tensor(1 / len(self.teachers))
        return Balance(weight * means.sum(), dict.fromkeys(losses, weight))
