"""From streams to gradients: all at once, or one stream at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import get_world_size
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from .average_over_ranks import average_over_ranks

if TYPE_CHECKING:
    from .multi_stream_model import MultiStreamModel


def joint_step(
    model: MultiStreamModel, data: dict[str, Any], optim_wrapper: OptimWrapper
) -> dict[str, float]:
    """One forward over all streams, one backward, one step (the paper's)."""
    with optim_wrapper.optim_context(model):
        data = model.data_preprocessor(data, True)
        losses = model(**data, mode='loss')
    loss, logs = model.parse_losses(losses)
    optim_wrapper.update_params(loss)
    finish_step(model, optim_wrapper)
    return logs


def finish_step(model: MultiStreamModel, optim_wrapper: OptimWrapper) -> None:
    """Let the model know whether its parameters have moved."""
    with optim_wrapper.optim_context(model):
        model.after_step(moved=optim_wrapper.should_update())


def per_stream_step(
    model: MultiStreamModel, data: dict[str, Any], optim_wrapper: OptimWrapper
) -> dict[str, float]:
    """Each stream forward and backward in turn, then one step.

    Gradients are those of :func:`joint_step` to rounding, since the total is
    a sum over streams; only one stream's activations live at a time. Ranks
    exchange gradients once, before the optimiser's step.
    """
    streams = model.data_preprocessor(data, True)['streams']
    losses: dict[str, Tensor] = {}
    for i, (name, batch) in enumerate(streams.items(), start=1):
        with optim_wrapper.optim_context(model):
            parts = model(streams={name: batch}, mode='loss')
        total = parts.pop('loss')
        loss = optim_wrapper.scale_loss(total)
        if i < len(streams):
            # OptimWrapper.backward counts an iteration, which only the last
            # stream completes.
            scaler = getattr(optim_wrapper, 'loss_scaler', None)
            (loss if scaler is None else scaler.scale(loss)).backward()
        else:
            optim_wrapper.backward(loss)
        losses['loss'] = losses.get('loss', 0) + total.detach()
        losses.update(parts)
    if optim_wrapper.should_update():
        if get_world_size() > 1:
            _average_gradients(model)
        optim_wrapper.step()
        optim_wrapper.zero_grad()
    finish_step(model, optim_wrapper)
    return model.parse_losses(losses)[1]


def _average_gradients(model: nn.Module) -> None:
    """One all-reduce over the gradients of all trained parameters."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = average_over_ranks(torch.cat([grad.flatten() for grad in grads]))
    for grad, part in zip(
        grads, flat.split([grad.numel() for grad in grads]), strict=True
    ):
        grad.copy_(part.view_as(grad))
