"""Checkpoints of joint runs in the config of a single task."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from kpu_mm.registry import HOOKS

from ..split_checkpoint import split_checkpoint, tasks_in


@HOOKS.register_module()
class JointCheckpointHook(Hook):
    """Load one task's part of a :class:`MultiTaskModel`'s checkpoint.

    Checkpoints of other models are left as they are.

    Args:
        task: The task that the config describes.
    """

    priority = 'VERY_HIGH'

    def __init__(self, task: str) -> None:
        self.task = task

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Rename what belongs to the task and drop the rest.

        Args:
            runner: The runner.
            checkpoint: The checkpoint, changed in place.

        Raises:
            ValueError: If a joint checkpoint has no such task, or the run is
                to resume from it.
        """
        if not tasks_in(checkpoint):
            return
        if runner._resume:
            raise ValueError(
                'a joint run can only be resumed with its own config; give '
                'its checkpoint as `load_from` to start from its weights.'
            )
        part = split_checkpoint(checkpoint, self.task)
        checkpoint.clear()
        checkpoint.update(part)
