"""Clip the gradient of a part of a model by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.hooks import RemovableHandle

from kpu_mm.registry import HOOKS


@HOOKS.register_module()
class ModuleClipHook(Hook):
    """Clip the norms of several modules' gradients, each apart.

    With ``optim_wrapper.clip_grad`` all parameters share one norm: where
    tasks learn together, the largest gradient decides how far those of the
    others are scaled down, and how much that changes from step to step.
    Logs ``grad_norm/<module>``, before clipping.

    Args:
        max_norm: Largest 2-norm of the gradient of each module, by its name
            in the model, such as ``{'tasks.coco': 0.01}``. Gradients of
            other parameters stay as they are.
    """

    def __init__(self, max_norm: Mapping[str, float]) -> None:
        self._max_norm = dict(max_norm)
        self._handle: RemovableHandle | None = None

    def before_train(self, runner: Runner) -> None:
        """Clip before each step of the optimiser, after any unscaling.

        Args:
            runner: The runner.

        Raises:
            ValueError: If the model has no such module, or nothing in it
                trains.
        """
        parts = {name: _trained(runner.model, name) for name in self._max_norm}

        def clip(*_: Any) -> None:
            for name, parameters in parts.items():
                norm = nn.utils.clip_grad_norm_(
                    parameters, self._max_norm[name]
                )
                runner.message_hub.update_scalar(
                    f'train/grad_norm/{name}', norm
                )

        optimizer = runner.optim_wrapper.optimizer
        self._handle = optimizer.register_step_pre_hook(clip)

    def after_train(self, runner: Runner) -> None:
        """Leave the optimiser as it was.

        Args:
            runner: The runner.
        """
        if self._handle is not None:
            self._handle.remove()


def _trained(model: nn.Module, name: str) -> list[nn.Parameter]:
    """The parameters of a module that train."""
    whole: Any = model.module if is_model_wrapper(model) else model
    modules = dict(whole.named_modules())
    if name not in modules:
        raise ValueError(
            f'ModuleClipHook: the model has no module {name!r}; it has '
            f'{sorted(n for n in modules if n.count(".") < 2 and n)}.'
        )
    trained = [p for p in modules[name].parameters() if p.requires_grad]
    if not trained:
        raise ValueError(
            f'ModuleClipHook: nothing in {name!r} trains, so there is '
            'nothing to clip; remove it from max_norm.'
        )
    return trained
