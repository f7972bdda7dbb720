"""FAMO: all teachers' losses fall at the same rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states

from kpu_mm.registry import MODELS

from .base_balancer import Balance, BaseBalancer

# as in the authors' code, https://github.com/Cranial-XIX/FAMO
EPS = 1e-8


@MODELS.register_module()
class FAMOBalancer(BaseBalancer):
    """Weights that even out the rates at which losses fall.

    FAMO (https://arxiv.org/abs/2306.03792). With z = softmax(logits) and the
    losses' distances D to their minima, the step minimises
    c * sum_t z_t log D_t, where c = 1 / sum_t z_t / D_t makes the gradient a
    mean of the teachers' with weights c z_t / D_t. After the step, Adam
    updates the logits by the decrease of log D: a loss that fell faster
    than the others gets a smaller weight.

    The losses after the step are those of the same images, as in the
    paper's Algorithm 1 and the authors' code: one more forward of student
    and projectors per step, without gradient and without the teachers,
    whose features are kept. ``dict(type='kpu_mm.SecondLossHook')`` among the
    hooks of the config does it. With gradient accumulation, the images
    are those of the last of the accumulated batches.

    The loss is a logarithm and may be negative. All processes weigh by the
    losses' means over all processes.

    Args:
        teachers: Names of all T teachers.
        streams: As :class:`BaseBalancer` takes it. Defaults to None.
        lr: Learning rate of the logits. Defaults to 0.025.
        weight_decay: What pulls the logits to equal weights, gamma.
            Defaults to 0.001.
        min_losses: For each teacher, what its loss cannot fall below.
            Defaults to None, 0 for all.

    Raises:
        ValueError: If ``min_losses`` names no teacher.
    """

    separable = False
    needs_second_loss = True

    logits: Tensor
    min_losses: Tensor
    steps: Tensor
    moment: Tensor
    square_moment: Tensor

    def __init__(
        self,
        teachers: Sequence[str],
        streams: Mapping[str, tuple[str, ...]] | None = None,
        lr: float = 0.025,
        weight_decay: float = 0.001,
        min_losses: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(teachers, streams)
        self.lr = lr
        self.weight_decay = weight_decay
        minima = dict(min_losses or {})
        if not set(minima) <= set(teachers):
            raise ValueError(f'min_losses={minima}: the teachers are {list(teachers)}.')
        self.register_buffer(
            'min_losses',
            torch.tensor([minima.get(name, 0.0) for name in teachers]),
            persistent=False,
        )
        self.register_buffer('steps', torch.zeros(()))
        for name in ('logits', 'moment', 'square_moment'):
            self.register_buffer(name, torch.zeros(len(teachers)))

    def forward(self, losses: Mapping[str, Tensor]) -> Balance:
        """Weigh and sum.

        Args:
            losses: For all teachers, one value per image, (B,).
        """
        own = self.means(losses)
        common = own.detach().clone()
        all_reduce(common, op='mean')
        # The value is the mean over all processes, the gradient is local:
        # data parallelism averages the gradients afterwards.
        distances = self._distances(own + (common - own.detach()))
        self._before = distances.detach()
        z = self.logits.softmax(0)
        c = 1 / (z / self._before).sum()
        loss = c * (z * distances.log()).sum()
        return Balance(loss, self.named(c * z / self._before))

    @torch.no_grad()
    def after_step(self, losses: Mapping[str, Tensor]) -> None:
        """Update the logits.

        Args:
            losses: For all teachers, one value per image, (B,), after the
                step that followed the last :meth:`forward`.
        """
        after = self.means(losses)
        all_reduce(after, op='mean')
        fall = self._before.log() - self._distances(after).log()
        z = self.logits.softmax(0)
        # gradient of sum_t z_t fall_t with respect to the logits:
        # the softmax's transposed Jacobian times the decrease of log D
        self._adam(z * (fall - (z * fall).sum()))

    def _distances(self, means: Tensor) -> Tensor:
        return means - self.min_losses + EPS

    def _adam(self, grad: Tensor) -> None:
        """One step of torch's Adam, whose state is kept in buffers here."""
        # Built anew in each step, so that checkpoints and `.to()` only need
        # to know the buffers.
        adam = torch.optim.Adam([self.logits], lr=self.lr, weight_decay=self.weight_decay)
        adam.state[self.logits] = dict(
            step=self.steps, exp_avg=self.moment, exp_avg_sq=self.square_moment
        )
        self.logits.grad = grad
        adam.step()
        self.logits.grad = None


class SecondForward:
    """Computes the losses of a step once more, after the optimiser's step.

    The second forward draws the random numbers that the first one, which
    follows the construction, has drawn (drop path). So only what has changed
    in the model makes a difference. It restores the random state and the
    model's buffers (BatchNorm's statistics) afterwards.

    Args:
        model: What the function runs.
        losses: Computes the losses; takes nothing.
    """

    def __init__(self, model: nn.Module, losses: Callable[[], dict[str, Tensor]]) -> None:
        self.model = model
        self.losses = losses
        self.state = torch.get_rng_state()
        weight = next(model.parameters())
        self.device = weight.device.type
        self.device_states = get_device_states(weight)

    @torch.no_grad()
    def __call__(self) -> dict[str, Tensor]:
        """Compute the losses without gradients.

        Returns:
            For each teacher, one value per image, (B,).
        """
        before = [buffer.clone() for buffer in self.model.buffers()]
        devices, _ = self.device_states
        with torch.random.fork_rng(devices):
            torch.set_rng_state(self.state)
            # its own default is that of whatever ran last in this process
            set_device_states(*self.device_states, device_type=self.device)
            losses = self.losses()
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)
        return losses
