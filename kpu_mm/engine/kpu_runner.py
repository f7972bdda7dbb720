"""A runner that never leaves a half-written checkpoint behind."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.runner import FlexibleRunner, Runner
from torch.utils.data import DataLoader

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.registry import RUNNERS


class AtomicCheckpoints:
    """Half of a runner: whole checkpoints only, and a careful resume.

    A checkpoint is written beside its final name, flushed to disk and then
    renamed, so a run killed at any moment leaves only whole ones. ``resume``
    without a path takes the newest whole checkpoint of the work directory
    and names those it passes over.
    """

    work_dir: str
    logger: MMLogger
    _resume: bool
    _load_from: str | None
    _has_loaded: bool

    def save_checkpoint(
        self, out_dir: str, filename: str, *args: Any, **kwargs: Any
    ) -> None:
        """Write ``out_dir/filename`` in one step, as seen from outside.

        Args:
            out_dir: A local directory.
            filename: Name of the checkpoint in it.
            *args: As ``Runner.save_checkpoint`` takes them.
            **kwargs: As ``Runner.save_checkpoint`` takes them.
        """
        partial = Path(out_dir, f'{filename}.partial')
        super().save_checkpoint(  # type: ignore[misc]
            out_dir, partial.name, *args, **kwargs
        )
        if is_main_process():
            if partial.is_file():  # DeepSpeed writes a directory
                with partial.open('rb') as file:
                    os.fsync(file.fileno())
            partial.replace(Path(out_dir, filename))

    def load_checkpoint(
        self, filename: str, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Load a checkpoint, refusing a truncated one by name.

        Args:
            filename: Path or URL.
            *args: As ``Runner.load_checkpoint`` takes them.
            **kwargs: As ``Runner.load_checkpoint`` takes them.

        Raises:
            RuntimeError: If a local file is no whole checkpoint.
        """
        if '://' not in filename and not is_whole(Path(filename)):
            raise RuntimeError(
                f'{filename} is missing, truncated or no checkpoint; choose '
                'another one, or pass --resume without a path for the newest '
                'whole checkpoint of the work directory.'
            )
        return super().load_checkpoint(  # type: ignore[misc]
            filename, *args, **kwargs
        )

    def load_or_resume(self) -> None:
        """Resume from the newest whole checkpoint when no path is given."""
        if self._resume and self._load_from is None and not self._has_loaded:
            latest = self._newest_whole_checkpoint()
            if latest is None:
                self.logger.info(
                    f'No checkpoint in {self.work_dir}: training starts anew.'
                )
                return
            self._load_from = str(latest)
        super().load_or_resume()  # type: ignore[misc]

    def _newest_whole_checkpoint(self) -> Path | None:
        found = [
            (int(match[1]), path)
            for path in Path(self.work_dir).glob('*.pth')
            if (match := re.fullmatch(r'(?:iter|epoch)_(\d+)', path.stem))
        ]
        for _, path in sorted(found, reverse=True):
            if is_whole(path):
                return path
            self.logger.warning(
                f'{path} is truncated: passing over it to an older one.'
            )
        return None


@RUNNERS.register_module()
class KPURunner(AtomicCheckpoints, Runner):
    """MMEngine's Runner with atomic checkpoints and a careful resume."""


@RUNNERS.register_module()
class KPUFlexibleRunner(AtomicCheckpoints, FlexibleRunner):
    """MMEngine's FlexibleRunner (FSDP, DeepSpeed) for several streams."""

    @property
    def train_dataloader(self) -> Any:
        """The loader that FlexibleRunner measures: one of torch's own.

        It asks for a batch size and an epoch's length, which strategies log
        or use as defaults; the train loop itself advances all streams.
        """
        loader: DataLoader | MultiStreamLoader = super().train_dataloader
        if isinstance(loader, MultiStreamLoader):
            return next(iter(loader.loaders.values()))
        return loader


def is_whole(path: Path) -> bool:
    """Whether a file has the directory that torch writes at its very end.

    DeepSpeed's checkpoints are directories, written as a whole.
    """
    return path.is_dir() or (path.is_file() and zipfile.is_zipfile(path))
