"""What distillers and models of several tasks have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor

from .average_over_ranks import average_over_ranks
from .backward import joint_step, per_stream_step

Streams = Mapping[str, Mapping[str, Any]]
_BACKWARD = {'joint': joint_step, 'per_stream': per_stream_step}


class MultiStreamModel(BaseModel):
    """A model that trains on a batch of each of several streams at once.

    Its ``forward(streams, mode='loss')`` gives ``loss``, a sum over the
    streams, and further values for the log.

    Args:
        backward: 'joint', one backward over all streams, or 'per_stream':
            the same gradients with the activation memory of one stream.
            Defaults to 'joint'.
        init_cfg: Initialisation of the whole model. Defaults to None.

    Raises:
        ValueError: If there is no such ``backward``.
    """

    def __init__(
        self,
        backward: str = 'joint',
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if backward not in _BACKWARD:
            raise ValueError(
                f'backward={backward!r}: choose from {tuple(_BACKWARD)}.'
            )
        self.backward = backward

    @property
    @abstractmethod
    def stream_names(self) -> tuple[str, ...]:
        """Names of the streams that training needs."""

    @abstractmethod
    def forward(self, streams: Streams, mode: str = 'loss') -> dict[str, Any]:
        """Losses of the streams for ``mode='loss'``."""

    def train_step(
        self, data: dict[str, Any], optim_wrapper: OptimWrapper
    ) -> dict[str, float]:
        """One optimisation step over all streams."""
        return _BACKWARD[self.backward](self, data, optim_wrapper)

    def after_step(self, moved: bool) -> None:
        """What follows each train step; nothing by default.

        Args:
            moved: Whether the optimiser has changed the parameters: not
                while gradients accumulate.
        """

    def check_streams(self, given: Collection[str]) -> None:
        """Compare the streams of a run with those that the model needs.

        Args:
            given: Names of the streams that the run has.

        Raises:
            ValueError: If one is missing or takes no part.
        """
        needed = set(self.stream_names)
        if missing := needed - set(given):
            raise ValueError(
                f'train_dataloader has no stream {sorted(missing)}, so the '
                'model would never learn from it: add it there, or remove '
                'what takes it from the model.'
            )
        if unknown := set(given) - needed:
            raise ValueError(
                f'train_dataloader has streams {sorted(unknown)} that the '
                f'model does not take; it takes {sorted(needed)}.'
            )

    def parse_losses(
        self, losses: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss to go back from, and all values averaged over ranks.

        One reduction and one transfer to the host serve all values.
        """
        values = torch.stack([v.detach().float() for v in losses.values()])
        values = average_over_ranks(values)
        logs = dict(zip(losses, values.tolist(), strict=True))
        return losses['loss'], logs

    def _hide_frozen_from_ddp(self) -> None:
        """DDP neither broadcasts nor reduces what is frozen."""
        self._ddp_params_and_buffers_to_ignore = [
            name for name, p in self.named_parameters() if not p.requires_grad
        ]
