"""Name, count and limit the images that could not be read."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from kpu_mm.registry import HOOKS

_COUNT = 'skipped_images'


@HOOKS.register_module()
class SkippedImagesHook(Hook):
    """Log skipped images of all ranks; stop when they are too many.

    Args:
        max_share: Largest tolerated share of skipped images. Defaults to
            0.01.
        min_images: Images to see before the share is judged. Defaults to
            1000.
        interval: Iterations between two exchanges among ranks. Defaults to
            50.
    """

    def __init__(
        self,
        max_share: float = 0.01,
        min_images: int = 1000,
        interval: int = 50,
    ) -> None:
        self.max_share = max_share
        self.min_images = min_images
        self.interval = interval
        self._pending: list[tuple[str, str]] = []
        self._seen_an_iteration = 0

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Collect what the loaders skipped.

        Args:
            runner: The runner.
            batch_idx: The iteration.
            data_batch: ``dict(streams={name: batch})``. Defaults to None.
        """
        streams = data_batch['streams'].values()
        self._seen_an_iteration = sum(len(b['images']) for b in streams)
        for batch in streams:
            self._pending += batch['skipped']
        if (batch_idx + 1) % self.interval == 0:
            self._report(runner, batch_idx + 1)

    def after_train(self, runner: Runner) -> None:
        """Report the rest.

        Args:
            runner: The runner.
        """
        self._report(runner, runner.iter)

    def _report(self, runner: Runner, iterations: int) -> None:
        skipped = self._gather()
        self._pending = []
        for name, reason in skipped:
            runner.logger.warning(f'skipped {name}: {reason}')
        hub = runner.message_hub
        # The message hub is part of the checkpoint.
        known = hub.get_info(_COUNT) if _COUNT in hub.runtime_info else 0
        count = known + len(skipped)
        hub.update_info(_COUNT, count)
        # A skipped image is replaced, so batches have the others alone.
        used = iterations * self._seen_an_iteration * get_world_size()
        seen = used + count
        if skipped:
            runner.logger.warning(f'{count} of {seen} images skipped so far.')
        if seen >= self.min_images and count > self.max_share * seen:
            raise RuntimeError(
                f'{count} of {seen} images could not be read, more than '
                f'max_share={self.max_share}; the log names them. Repair or '
                'remove them, or raise max_share of SkippedImagesHook.'
            )

    def _gather(self) -> list[tuple[str, str]]:
        if get_world_size() == 1:
            return self._pending
        ranks: list[Any] = [None] * get_world_size()
        dist.all_gather_object(ranks, self._pending)
        return [entry for pending in ranks for entry in pending]
