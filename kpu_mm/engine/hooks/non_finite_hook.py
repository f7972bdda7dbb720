"""Stop at the first loss that is not a number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from kpu_mm.registry import HOOKS


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Raise when a logged loss is NaN or infinite.

    Runs before checkpoints are written, so the broken state is never saved.
    """

    priority = 'VERY_HIGH'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, float | Tensor] | None = None,
    ) -> None:
        """Check the losses of one iteration.

        Args:
            runner: The runner.
            batch_idx: The iteration.
            data_batch: Its data. Defaults to None.
            outputs: Its logged values. Defaults to None.

        Raises:
            FloatingPointError: If one is not finite.
        """
        bad = {
            name: value
            for name, value in _as_floats(outputs or {}).items()
            if not math.isfinite(value)
        }
        if bad:
            named = ', '.join(f'{name} = {v}' for name, v in bad.items())
            raise FloatingPointError(
                f'iteration {batch_idx + 1}: {named}. The checkpoints in '
                f'{runner.work_dir} are from before it: lower the learning '
                'rate or clip gradients (optim_wrapper.clip_grad) and '
                'continue with --resume.'
            )


def _as_floats(values: Mapping[str, float | Tensor]) -> dict[str, float]:
    """Tensors come to the host together, or each would wait for the GPU."""
    tensors = {k: v for k, v in values.items() if isinstance(v, Tensor)}
    floats = {k: v for k, v in values.items() if not isinstance(v, Tensor)}
    if tensors:
        stacked = torch.stack(
            [v.detach().float().mean() for v in tensors.values()]
        )
        floats.update(zip(tensors, stacked.tolist(), strict=True))
    return floats
