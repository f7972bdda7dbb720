"""Validation and test of every task of a model, with its own metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.runner import BaseLoop, Runner
from mmengine.runner.amp import autocast

from kpu_mm.registry import LOOPS


@LOOPS.register_module()
class MultiTaskValLoop(BaseLoop):
    """Validate a :class:`MultiTaskModel`, one task after the other.

    Hooks see one validation with the metrics of all tasks, each named after
    its task: ``ade20k/mIoU``. The loop's ``dataloader`` and ``evaluator``
    are those of the current task. ``_scope_`` in the configs of datasets and
    metrics names their toolbox.

    Args:
        runner: The runner.
        dataloader: For each task, its dataloader's config.
        evaluator: For each task, its evaluator's config.
        fp16: Run the models in autocast. Defaults to False.

    Raises:
        ValueError: If a task has no dataloader or no evaluator.
    """

    stage = 'val'

    def __init__(
        self,
        runner: Runner,
        dataloader: Mapping[str, Any],
        evaluator: Mapping[str, Any],
        fp16: bool = False,
    ) -> None:
        if not dataloader or set(dataloader) != set(evaluator):
            raise ValueError(
                f'the {self.stage}_dataloader has tasks {sorted(dataloader)} and the '
                f'{self.stage}_evaluator {sorted(evaluator)}; give one of each to every task.'
            )
        self.dataloaders = {
            name: runner.build_dataloader(config, seed=runner.seed)
            for name, config in dataloader.items()
        }
        self.evaluators = {name: runner.build_evaluator(evaluator[name]) for name in dataloader}
        # MMEngine's loops have one dataloader and one evaluator, which hooks
        # look at; `run_task` puts those of its task in their place.
        super().__init__(runner, next(iter(self.dataloaders.values())))
        self.evaluator = next(iter(self.evaluators.values()))
        self.fp16 = fp16

    def run(self) -> dict[str, float]:
        """Evaluate all tasks.

        Returns:
            The metrics, named ``<task>/<metric>``.
        """
        self.runner.call_hook(f'before_{self.stage}')
        self.runner.call_hook(f'before_{self.stage}_epoch')
        self.runner.model.eval()
        metrics = {
            f'{task}/{name}': value
            for task in self.dataloaders
            for name, value in self.run_task(task).items()
        }
        self.runner.call_hook(f'after_{self.stage}_epoch', metrics=metrics)
        self.runner.call_hook(f'after_{self.stage}')
        return metrics

    @torch.no_grad()
    def run_task(self, task: str) -> dict[str, float]:
        """Evaluate one task.

        Args:
            task: Its name.

        Returns:
            Its metrics, by their own names.
        """
        self.dataloader = self.dataloaders[task]
        self.evaluator = self.evaluators[task]
        dataset = self.dataloader.dataset
        meta = getattr(dataset, 'metainfo', None)
        self.evaluator.dataset_meta = meta
        self.runner.visualizer.dataset_meta = meta
        step = getattr(self.runner.model, f'{self.stage}_step')
        for i, batch in enumerate(self.dataloader):
            now = dict(batch_idx=i, data_batch=batch)
            self.runner.call_hook(f'before_{self.stage}_iter', **now)
            with autocast(enabled=self.fp16):
                # A model of several tasks takes and gives one entry a task.
                outputs = step(dict(streams={task: batch}))[task]
            self.evaluator.process(data_samples=outputs, data_batch=batch)
            self.runner.call_hook(f'after_{self.stage}_iter', outputs=outputs, **now)
        return self.evaluator.evaluate(len(dataset))


@LOOPS.register_module()
class MultiTaskTestLoop(MultiTaskValLoop):
    """:class:`MultiTaskValLoop` for tests, with the same arguments."""

    stage = 'test'
