"""A pass through a model that can be run once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import get_device_states, set_device_states

Result = TypeVar('Result')


class Replay(Generic[Result]):
    """Runs a function again as if it were now, without a trace.

    The second run draws the random numbers that the first one, which
    follows the construction, has drawn (drop path), so that only what has
    changed in the model makes a difference. It leaves the generators and
    the model's buffers (BatchNorm's statistics) as they are.

    Args:
        model: What the function runs.
        function: Takes nothing.
    """

    def __init__(
        self, model: nn.Module, function: Callable[[], Result]
    ) -> None:
        self.model = model
        self.function = function
        self.state = torch.get_rng_state()
        self.device_states = get_device_states(next(model.parameters()))

    @torch.no_grad()
    def __call__(self) -> Result:
        """Run the function without gradients.

        Returns:
            What it returns.
        """
        before = [buffer.clone() for buffer in self.model.buffers()]
        devices, _ = self.device_states
        with torch.random.fork_rng(devices):
            torch.set_rng_state(self.state)
            set_device_states(*self.device_states)
            result = self.function()
        for buffer, value in zip(self.model.buffers(), before, strict=True):
            buffer.copy_(value)
        return result
