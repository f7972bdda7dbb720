"""Losses after each step, for the balancers that learn from them."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from kpu_mm.registry import HOOKS


@HOOKS.register_module()
class SecondLossHook(Hook):
    """Give a distiller's balancer the losses before and after each step.

    FAMO (https://arxiv.org/abs/2306.03792) needs it: one more forward of
    student and projectors on the same images, with the same random numbers.
    Does nothing for balancers that do not learn from it.
    """

    # before the moving average and the checkpoint of the same iteration
    priority = 'VERY_HIGH'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, float] | None = None,
    ) -> None:
        """Compute the losses once more, if the optimiser made a step.

        Args:
            runner: The runner.
            batch_idx: The iteration.
            data_batch: Not used. Defaults to None.
            outputs: Not used. Defaults to None.
        """
        model: Any = runner.model
        if is_model_wrapper(model):
            model = model.module
        forward, model.second_forward = model.second_forward, None
        # no step while gradients accumulate
        if forward is not None and runner.optim_wrapper.should_update():
            with runner.optim_wrapper.optim_context(model):
                model.balancer.after_step(forward())
