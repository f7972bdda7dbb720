"""What distillers and models of several tasks have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor

Streams = Mapping[str, Mapping[str, Any]]
_BACKWARD = ('joint', 'per_stream')


class LogValues(Mapping[str, float]):
    """Scalars on their way to the host; the first to read one waits for all.

    Read after the backward pass was launched, this costs no time: a GPU has
    the values when it begins with it.

    Args:
        names: Name of each value.
        values: (N,), on any device.
    """

    def __init__(self, names: Iterable[str], values: Tensor) -> None:
        self._names = tuple(names)
        # into page-locked memory, which torch allocates for it
        self._arriving = values.to('cpu', non_blocking=True)
        self._copied = torch.cuda.Event() if values.is_cuda else None
        if self._copied is not None:
            self._copied.record()

    @cached_property
    def _values(self) -> dict[str, float]:
        if self._copied is not None:
            self._copied.synchronize()
        return dict(zip(self._names, self._arriving.tolist(), strict=True))

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


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

    def __init__(self, backward: str = 'joint', init_cfg: dict[str, Any] | None = None) -> None:
        # Batches come in page-locked memory: their copy keeps nobody waiting.
        super().__init__(BaseDataPreprocessor(non_blocking=True), init_cfg)
        if backward not in _BACKWARD:
            raise ValueError(f'backward={backward!r}: choose from {_BACKWARD}.')
        self.backward = backward

    @property
    @abstractmethod
    def stream_names(self) -> tuple[str, ...]:
        """Names of the streams that training needs."""

    @abstractmethod
    def forward(self, streams: Streams, mode: str = 'loss') -> dict[str, Any]:
        """Losses of the streams for ``mode='loss'``."""

    def train_step(self, data: dict[str, Any], optim_wrapper: OptimWrapper) -> Mapping[str, float]:
        """One optimisation step over all streams.

        Args:
            data: ``dict(streams={name: batch})``, as the loader gives it.
            optim_wrapper: The optimiser.

        Returns:
            Values for the log.
        """
        if self.backward == 'joint':
            logs: Mapping[str, float] = super().train_step(data, optim_wrapper)
            return logs
        return self._per_stream_step(data, optim_wrapper)

    def _per_stream_step(
        self, data: dict[str, Any], optim_wrapper: OptimWrapper
    ) -> Mapping[str, float]:
        """Each stream forward and backward in turn, then one step.

        Gradients are those of the joint step to rounding, since the total is
        a sum over streams; only one stream's activations live at a time.
        Ranks exchange gradients once, before the optimiser's step.
        """
        streams = self.data_preprocessor(data, True)['streams']
        losses: dict[str, Tensor] = {}
        logs: Mapping[str, float] = {}
        for i, (name, batch) in enumerate(streams.items(), start=1):
            with optim_wrapper.optim_context(self):
                parts = self(streams={name: batch}, mode='loss')
            total = parts.pop('loss')
            loss = optim_wrapper.scale_loss(total)
            # Detached: the graph of this stream is freed now.
            losses['loss'] = losses.get('loss', 0) + total.detach()
            losses.update(parts)
            if i < len(streams):
                # OptimWrapper.backward counts an iteration, which only the
                # last stream completes.
                scaler = getattr(optim_wrapper, 'loss_scaler', None)
                (loss if scaler is None else scaler.scale(loss)).backward()
            else:
                logs = self.parse_losses(losses)[1]
                optim_wrapper.backward(loss)
        # While gradients accumulate there is nothing to exchange yet.
        if optim_wrapper.should_update():
            self._average_gradients()
            optim_wrapper.step()
            optim_wrapper.zero_grad()
        return logs

    def _average_gradients(self) -> None:
        """One all-reduce over the gradients of all trained parameters."""
        grads = [p.grad for p in self.parameters() if p.grad is not None]
        flat = torch.cat([grad.flatten() for grad in grads])
        all_reduce(flat, op='mean')
        # (sum of sizes,) -> one part for each gradient, in its shape
        parts = flat.split([grad.numel() for grad in grads])
        for grad, part in zip(grads, parts, strict=True):
            grad.copy_(part.view_as(grad))

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, Mapping[str, float]]:
        """The loss to go back from, and all values averaged over ranks.

        Args:
            losses: ``loss`` and values for the log, scalars.
        """
        # One reduction and one transfer to the host serve all values.
        values = torch.stack([v.detach().float() for v in losses.values()])
        all_reduce(values, op='mean')
        return losses['loss'], LogValues(losses, values)

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
                f'train_dataloader has no stream {sorted(missing)}, so the model would never learn '
                'from it: add it there, or remove what takes it from the model.'
            )
        if unknown := set(given) - needed:
            raise ValueError(
                f'train_dataloader has streams {sorted(unknown)} that the '
                f'model does not take; it takes {sorted(needed)}.'
            )

    def _hide_frozen_from_ddp(self) -> None:
        """DDP neither broadcasts nor reduces what is frozen."""
        self._ddp_params_and_buffers_to_ignore = [
            name for name, p in self.named_parameters() if not p.requires_grad
        ]
