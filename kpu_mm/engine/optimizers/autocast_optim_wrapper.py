"""Mixed precision without loss scaling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from kpu_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Autocast to bfloat16 on any device.

    bfloat16 has float32's range, so nothing needs scaling; for float16 use
    MMEngine's ``AmpOptimWrapper``, which scales the loss. Takes the
    arguments of MMEngine's ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast the forward pass.

        Args:
            model: The model that trains.
        """
        device = get_device().split(':')[0]
        with (
            super().optim_context(model),
            torch.autocast(device, dtype=torch.bfloat16),
        ):
            yield
