"""Hooks that write checkpoints and take single tasks out of joint ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from kpu_mm.registry import HOOKS

# How the state dict of a MultiTaskModel names its parts.
_BACKBONE = 'backbone.'
_TASKS = 'tasks.'


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, in an order that loses nothing.

    MMEngine deletes the oldest of ``max_keep_ckpts`` checkpoints before it
    writes the next. Here the next one is written first, then the file
    ``last_checkpoint`` in one step, and then the oldest is deleted. Arguments
    are those of :class:`mmengine.hooks.CheckpointHook`.
    """

    def before_train(self, runner: Runner) -> None:
        """Take up what a resumed run has saved.

        Args:
            runner: The runner.
        """
        super().before_train(runner)
        # MMEngine deletes the best so far for a better one, also one in the
        # folder of another run from whose checkpoint this one goes on.
        best: Any = getattr(self, 'best_ckpt_path', None)
        if best is not None and Path(best).parent != Path(self.out_dir):
            self.best_ckpt_path = None

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        """Write a checkpoint of a step, then delete the outdated one."""
        outdated = None
        # A best checkpoint may be of the step that was saved just before.
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            # The checkpoint holds this list, so it comes first.
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        # A rename is atomic: the file never names half a path.
        last = Path(runner.work_dir, 'last_checkpoint')
        partial = last.with_name('last_checkpoint.partial')
        partial.write_text(self.last_ckpt, encoding='utf-8')
        partial.replace(last)
        if outdated is not None:
            path = self._path(outdated)
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _path(self, step: int) -> Any:
        name = self.filename_tmpl.format(step)
        return self.file_backend.join_path(self.out_dir, name)


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

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
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


def tasks_in(checkpoint: Mapping[str, Any]) -> list[str]:
    """Name the tasks of a checkpoint.

    Args:
        checkpoint: What MMEngine's runner saves.

    Returns:
        The tasks of a :class:`MultiTaskModel`; none for any other model.
    """
    names = [
        key.split('.')[1] for key in checkpoint.get('state_dict', ()) if key.startswith(_TASKS)
    ]
    # unlike a set, a dict keeps the order of the checkpoint
    return list(dict.fromkeys(names))


def split_checkpoint(checkpoint: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Take the backbone and one task out of a joint checkpoint.

    Args:
        checkpoint: That of a :class:`MultiTaskModel`.
        task: The task.

    Returns:
        Weights as the task's own model names them, and the meta information
        of its dataset.

    Raises:
        ValueError: If the checkpoint has no such task.
    """
    tasks = tasks_in(checkpoint)
    if task not in tasks:
        raise ValueError(f"the checkpoint has no task '{task}'; its tasks are {tasks}.")
    own = f'{_TASKS}{task}.'
    state = {
        key.removeprefix(own): value
        for key, value in checkpoint['state_dict'].items()
        if key.startswith((_BACKBONE, own))
    }
    # A joint run keeps the dataset_meta of each task under its name.
    meta = dict(checkpoint.get('meta', {}))
    meta['dataset_meta'] = (meta.get('dataset_meta') or {}).get(task)
    return dict(state_dict=state, meta=meta)
