"""Base of the balancers, and those that weigh a loss by its scale."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from mmengine.dist import all_reduce
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
        needs_equal_batches: Whether all processes must have as many images.
    """

    separable = True
    needs_second_loss = False
    needs_equal_batches = False
    no_weight_decay = True

    def __init__(
        self, teachers: Sequence[str], streams: Mapping[str, tuple[str, ...]] | None = None
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
                f'{type(self).__name__} weighs all teachers against each other, but there are no '
                f'losses of {sorted(missing)}: give the streams of all teachers.'
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

    KPU (https://arxiv.org/abs/2508.14707).

    Args:
        teachers: Names of all T teachers.
        streams: As :class:`BaseBalancer` takes it. Defaults to None.
        per_image: Let each image of all processes count the same, where
            batches have different sizes (:class:`kpu_mm.datasets.TokenPacks`),
            as SigLino (https://arxiv.org/abs/2512.20157); else each process
            counts the same. Defaults to False.

    Raises:
        ValueError: If ``per_image`` is set and a teacher has several streams.
    """

    def __init__(
        self,
        teachers: Sequence[str],
        streams: Mapping[str, tuple[str, ...]] | None = None,
        per_image: bool = False,
    ) -> None:
        super().__init__(teachers, streams)
        # Losses of a teacher's streams come joined, without their numbers of images.
        if per_image and any(len(streams) > 1 for streams in self.streams.values()):
            raise ValueError(
                'EqualBalancer: per_image=True needs one stream for each teacher; leave it out, '
                'or let each teacher have one stream.'
            )
        self.per_image = per_image

    def forward(self, losses: Mapping[str, Tensor]) -> Balance:
        """Weigh and sum.

        Args:
            losses: For some or all teachers, one value per image, (B,).
        """
        means = torch.stack([loss.mean() for loss in losses.values()])
        if self.per_image:
            own = torch.stack([means.new_full((), len(loss)) for loss in losses.values()])
            common = own.clone()
            all_reduce(common, op='mean')
            means = means * own / common
        # All T teachers, not those given: one call may bring one stream.
        # filled on the device: new_tensor would copy from the host and wait
        weight = means.new_full((), 1 / len(self.teachers))
        return Balance(weight * means.sum(), dict.fromkeys(losses, weight))


@MODELS.register_module()
class AdaLossBalancer(BaseBalancer):
    """All losses brought to the same scale by their moving averages.

    AdaLoss (https://arxiv.org/abs/1708.06832), as AM-RADIO
    (https://arxiv.org/abs/2312.06709, section 3.4.1) tried it with momentum
    0.99. Weights are proportional to the inverse of each loss's exponential
    average over the steps before, and sum to 1, as equal weights do; the
    first step has equal weights.

    Args:
        teachers: Names of all T teachers.
        streams: As :class:`BaseBalancer` takes it. Defaults to None.
        momentum: Share of the old average in the new one. Defaults to 0.99.
    """

    separable = False

    averages: Tensor
    started: Tensor

    def __init__(
        self,
        teachers: Sequence[str],
        streams: Mapping[str, tuple[str, ...]] | None = None,
        momentum: float = 0.99,
    ) -> None:
        super().__init__(teachers, streams)
        self.momentum = momentum
        self.register_buffer('averages', torch.ones(len(teachers)))
        self.register_buffer('started', torch.tensor(False))

    def forward(self, losses: Mapping[str, Tensor]) -> Balance:
        """Weigh and sum; in training, then update the averages.

        Args:
            losses: For all teachers, one value per image, (B,).
        """
        means = self.means(losses)
        # the averages of the steps before: this step's come after it
        inverse = 1 / self.averages
        weights = inverse / inverse.sum()
        if self.training:
            common = means.detach().clone()
            all_reduce(common, op='mean')
            self._update(common)
        return Balance((weights * means).sum(), self.named(weights))

    def _update(self, means: Tensor) -> None:
        # The first step sets the averages, or they would start from ones.
        moved = self.averages.lerp(means, 1 - self.momentum)
        self.averages.copy_(torch.where(self.started, moved, means))
        self.started.fill_(True)


@MODELS.register_module()
class UncertaintyBalancer(BaseBalancer):
    """Losses weighed by homoscedastic uncertainty.

    Kendall et al. (https://arxiv.org/abs/1705.07115), equation 7 with
    s = log(sigma^2): the sum over teachers of (exp(-s_t) L_t + s_t) / 2. The
    log-variances s start at 0 and are trained with the student, without
    weight decay. The loss may become negative. It is a sum over streams only
    if each teacher has one.

    Args:
        teachers: Names of all T teachers.
        streams: As :class:`BaseBalancer` takes it. Defaults to None.
    """

    def __init__(
        self, teachers: Sequence[str], streams: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        super().__init__(teachers, streams)
        self.log_variances = nn.Parameter(torch.zeros(len(self.teachers)))
        # One call adds s_t / 2, however many of a teacher's streams it brings.
        self.separable = all(len(streams) == 1 for streams in self.streams.values())

    def forward(self, losses: Mapping[str, Tensor]) -> Balance:
        """Weigh and sum.

        Args:
            losses: For some or all teachers, one value per image, (B,).
        """
        # only of the teachers given: one call may bring one stream
        s = self.log_variances[[self.teachers.index(name) for name in losses]]
        means = torch.stack([loss.mean() for loss in losses.values()])
        weights = (-s).exp() / 2  # 1 / (2 sigma^2)
        loss = (weights * means + s / 2).sum()
        return Balance(loss, dict(zip(losses, weights.detach().unbind(), strict=True)))
