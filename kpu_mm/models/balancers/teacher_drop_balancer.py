"""TeacherDrop: random teachers are dropped, the one with most loss kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, broadcast, get_rank, get_world_size
from torch import Tensor

from kpu_mm.registry import MODELS

from .base_balancer import Balance, BaseBalancer


def keep_worst(losses: Tensor, drawn: Tensor, drop_prob: float) -> Tensor:
    """Drop teachers at random, but never the one with the largest loss.

    Args:
        losses: (T, N).
        drawn: (T, N), uniform in [0, 1).
        drop_prob: Probability of being dropped.

    Returns:
        (T, N), 1 where a teacher is kept, else 0.
    """
    worst = F.one_hot(losses.argmax(0), len(losses)).T  # (N, T) -> (T, N)
    return ((drawn >= drop_prob) | worst.bool()).to(losses.dtype)


@MODELS.register_module()
class TeacherDropBalancer(BaseBalancer):
    """Teachers dropped at random, except the one with the largest loss.

    Teacher dropping of UNIC (https://arxiv.org/abs/2408.05088). For each
    image the teacher with the largest loss is kept, and each other one is
    dropped with probability ``drop_prob``; the loss is the mean over all
    that is kept, of all processes.

    In UNIC all teachers get the same images. If they get different streams
    here, their losses cannot be compared image by image; then the choice is
    made once for the whole batch, by the teachers' mean losses.

    Nothing is dropped in eval mode. Random numbers come from the global
    generator of the CPU, which the train loop seeds for each iteration.
    Process 0 draws for all, so that two processes drop the same teachers as
    one process with the joined batch.

    Args:
        teachers: Names of all T teachers.
        streams: As :class:`BaseBalancer` takes it. Defaults to None.
        drop_prob: Probability of being dropped. Defaults to 0.5.

    Raises:
        ValueError: If the probability is not in [0, 1].
    """

    separable = False
    needs_equal_batches = True

    def __init__(
        self,
        teachers: Sequence[str],
        streams: Mapping[str, tuple[str, ...]] | None = None,
        drop_prob: float = 0.5,
    ) -> None:
        super().__init__(teachers, streams)
        if not 0 <= drop_prob <= 1:
            raise ValueError(f'drop_prob={drop_prob}: a probability is in [0, 1].')
        self.drop_prob = drop_prob
        self.per_image = len(set(self.streams.values())) == 1

    def forward(self, losses: Mapping[str, Tensor]) -> Balance:
        """Weigh and sum.

        Args:
            losses: For all teachers, one value per image, (B,).
        """
        values = self.means(losses)[:, None]  # (T, 1)
        if self.per_image:
            values = torch.stack([losses[name] for name in self.teachers])
        kept = self._kept(values.detach())  # (T, B) or (T, 1)
        # divided by what all processes keep, not only this one
        count = kept.sum()
        all_reduce(count, op='mean')
        weights = kept / count
        return Balance((weights * values).sum(), self.named(weights.sum(1)))

    def _kept(self, values: Tensor) -> Tensor:
        if not self.training:
            return torch.ones_like(values)
        if not self.per_image:
            values = values.clone()
            all_reduce(values, op='mean')
        return keep_worst(values, self._draw(values), self.drop_prob)

    def _draw(self, values: Tensor) -> Tensor:
        """This process's columns of the table that process 0 draws."""
        ranks = get_world_size() if self.per_image else 1
        count = values.shape[1]
        table = torch.rand(ranks * count, len(values)).to(values)  # (N, T)
        broadcast(table)
        first = get_rank() * count if self.per_image else 0
        return table[first : first + count].T  # (count, T) -> (T, count)
