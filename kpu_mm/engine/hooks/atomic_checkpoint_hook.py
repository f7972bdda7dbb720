"""A checkpoint hook that can be killed at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from kpu_mm.registry import HOOKS


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, in an order that loses nothing.

    MMEngine deletes the oldest of ``max_keep_ckpts`` checkpoints before it
    writes the next. Here the next one is written first, then the file
    ``last_checkpoint`` in one step, and then the oldest is deleted. Arguments
    are those of :class:`mmengine.hooks.CheckpointHook`.
    """

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict[str, Any]
    ) -> None:
        """Write a checkpoint of a step, then delete the outdated one."""
        outdated = None
        # A best checkpoint may be of the step that was saved just before.
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            # The checkpoint holds this list, so it comes first.
            runner.message_hub.update_info(
                'keep_ckpt_ids', list(self.keep_ckpt_ids)
            )
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            _write(Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt)
            if outdated is not None:
                self._delete(outdated)

    def _delete(self, step: int) -> None:
        path = self.file_backend.join_path(
            self.out_dir, self.filename_tmpl.format(step)
        )
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # DeepSpeed's are folders
            self.file_backend.rmtree(path)


def _write(path: Path, text: str) -> None:
    """Write a text file in one step, as seen from outside."""
    partial = path.with_name(path.name + '.partial')
    partial.write_text(text, encoding='utf-8')
    partial.replace(path)
