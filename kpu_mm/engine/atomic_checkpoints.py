"""Checkpoints that are whole or absent, and the newest whole one to resume from."""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer, MMLogger, print_log

from kpu_mm.datasets.image_table import warn_without_locks
from kpu_mm.weights.checkpoint_file import find_fault, is_legacy

LOCK_FILE = '.lock'
_ANEW = 'To start anew, move them away or leave --resume out.'
# What runs leave behind, besides the checkpoints that --resume looks for. A
# run killed within its first checkpoint leaves *.partial, and starts anew.
_TRACES = ('last_checkpoint', '*.pth', 'iter_*', 'epoch_*')


class AtomicCheckpoints:
    """Mixin of runners: whole checkpoints only, and a careful resume.

    A checkpoint is written next to its final name, flushed to disk and then
    renamed, so a run killed at any moment leaves only whole ones. It holds
    tensors and plain values alone. ``resume`` without a path takes the newest
    whole checkpoint of the work directory and names those it passes over.
    One run at a time trains in a work directory.
    """

    # What MMEngine's runner brings.
    work_dir: str
    hooks: list[Any]
    logger: MMLogger
    _resume: bool | str
    _load_from: str | None
    _has_loaded: bool

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """Write ``out_dir/filename`` in one step, as seen from outside.

        Args:
            out_dir: A local directory.
            filename: Name of the checkpoint in it.
            *args: As ``Runner.save_checkpoint`` takes them.
            **kwargs: As ``Runner.save_checkpoint`` takes them.
        """
        partial = Path(out_dir, f'{filename}.partial')
        try:
            super().save_checkpoint(  # type: ignore[misc]
                out_dir, partial.name, *args, **kwargs
            )
            if is_main_process():
                # Flushed before the rename, or a power cut could leave the
                # name of a file whose content was never written.
                with partial.open('rb') as file:
                    os.fsync(file.fileno())
                partial.replace(Path(out_dir, filename))
        except OSError as error:
            raise RuntimeError(
                f'The checkpoint {Path(out_dir, filename)} cannot be written '
                f'({error.strerror or error}); free space or choose another '
                'work directory, then continue with --resume.'
            ) from error

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call hooks; keep what is no plain value out of checkpoints.

        Args:
            fn_name: The hooks' method.
            **kwargs: Its arguments.
        """
        if fn_name == 'after_load_checkpoint' and self._resume:
            self._check_resumable(kwargs['checkpoint'])
        super().call_hook(fn_name, **kwargs)  # type: ignore[misc]
        # After the hooks, which may add to the checkpoint.
        if fn_name == 'before_save_checkpoint':
            to_plain(kwargs['checkpoint'])
        elif fn_name == 'after_load_checkpoint':
            from_plain(kwargs['checkpoint'])

    def train(self) -> Any:
        """Train, as the only run in the work directory.

        Raises:
            RuntimeError: If another run trains there.
        """
        self._keep_two_checkpoints()
        with only_run(Path(self.work_dir)):
            return super().train()  # type: ignore[misc]

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint, of which each part has a checksum.

        Args:
            filename: Path or URL.
            *args: As ``Runner.load_checkpoint`` takes them.
            **kwargs: As ``Runner.load_checkpoint`` takes them.

        Raises:
            RuntimeError: If a local file is damaged, no checkpoint, or in
                the format of PyTorch before 1.6, which has no checksums.
        """
        # The loader itself finds damage in any other file.
        path = Path(filename).expanduser()
        if is_legacy(path):
            raise RuntimeError(f"'{filename}' {find_fault(path)}.")
        return super().load_checkpoint(  # type: ignore[misc]
            filename, *args, **kwargs
        )

    def load_or_resume(self) -> None:
        """Resume from the newest whole checkpoint when no path is given.

        With ``resume='auto'`` a path in ``load_from`` names the weights to
        start from, not the checkpoint to resume from. A folder without any
        trace of a checkpoint starts from these weights, or anew.

        Raises:
            RuntimeError: If there are checkpoints or parts of them, and none
                is whole and of this run.
        """
        newest = self._resume == 'auto' or (self._resume and self._load_from is None)
        if newest and not self._has_loaded:
            latest = newest_checkpoint(Path(self.work_dir))
            if latest is None:
                self._refuse_other_checkpoints()
                start = f'with the weights of {self._load_from}' if self._load_from else 'anew'
                self.logger.info(f'No checkpoint in {self.work_dir}: training starts {start}.')
                self._resume = False
            else:
                self._load_from = str(latest)
        super().load_or_resume()  # type: ignore[misc]

    def _refuse_other_checkpoints(self) -> None:
        traces = {path for name in _TRACES for path in Path(self.work_dir).glob(name)}
        names = sorted(path.name for path in traces if path.suffix != '.partial')
        if names:
            raise RuntimeError(
                f'{self.work_dir} has no iter_N.pth or epoch_N.pth to resume from, but '
                f'{", ".join(names[:5])}: pass the one to resume from as --resume PATH. {_ANEW}'
            )

    def _check_resumable(self, checkpoint: Any) -> None:
        """Raise if a checkpoint has weights, but no state of a run."""
        meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
        if not isinstance(meta, dict) or not {'epoch', 'iter'} <= set(meta):
            raise RuntimeError(
                f"'{self._load_from}' holds no state of a run to resume, but weights at most; "
                'pass it as load_from and leave --resume out.'
            )

    def _keep_two_checkpoints(self) -> None:
        # MMEngine's hook deletes the oldest of max_keep_ckpts before it
        # writes the next: with 1 a run killed in between would have none.
        # AtomicCheckpointHook deletes afterwards.
        for hook in self.hooks:
            # not isinstance, as AtomicCheckpointHook is a subclass
            is_stock = type(hook) is CheckpointHook
            if is_stock and hook.max_keep_ckpts == 1:
                hook.max_keep_ckpts = 2
                self.logger.warning(
                    'max_keep_ckpts=1 would leave no checkpoint while the '
                    'next one is written: 2 are kept.'
                )


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, whatever ``last_checkpoint`` says.

    A run that was killed may have left that file as it was.

    Args:
        folder: The run's work directory.

    Returns:
        The file, or None if there is no ``iter_N.pth`` or ``epoch_N.pth``.

    Raises:
        RuntimeError: If there are some, and none is whole.
    """
    found = [
        (int(match[1]), path)
        for path in folder.glob('*.pth')
        if (match := re.fullmatch(r'(?:iter|epoch)_(\d+)', path.stem))
    ]
    for _, path in sorted(found, reverse=True):
        fault = find_fault(path)
        if fault is None:
            return path
        text = f'{path} {fault}. Passing over it to an older one.'
        print_log(text, 'current', logging.WARNING)
    if found:
        raise RuntimeError(
            f'None of the {len(found)} checkpoints in {folder} is whole; the log says why. {_ANEW}'
        )
    return None


@contextmanager
def only_run(work_dir: Path) -> Iterator[None]:
    """Hold a work directory, so that no other run writes into it.

    The system releases the lock when the process ends, however it ends. On a
    file system without locks a warning says that there is none.

    Args:
        work_dir: The directory; the main process alone locks it.

    Raises:
        RuntimeError: If another process holds it.
    """
    if not is_main_process():
        yield
        return
    path = work_dir / LOCK_FILE
    # Locks of this kind (POSIX) are not passed on to forked workers, which
    # may outlive a killed run for seconds.
    with path.open('a') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise RuntimeError(
                f'Another run is training in {work_dir} (it holds {path}); '
                'wait for its end, or pass another --work-dir.'
            ) from error
        except OSError as error:
            result = 'nothing will stop a second run in the folder, so take care that there is none'
            warn_without_locks(error, path, result)
        yield


def to_plain(checkpoint: dict[str, Any]) -> None:
    """Replace what is no tensor and no plain value, in place.

    MMEngine's message hub saves numpy scalars, and numpy arrays inside its
    own class, for which a reader must allow more than weights. Its OneCycleLR
    saves a function, which its constructor sets anyway.

    Args:
        checkpoint: What MMEngine's runner is about to save.
    """
    for part in ('meta', 'message_hub', 'param_schedulers'):
        if part in checkpoint:
            checkpoint[part] = _plain(checkpoint[part])


def from_plain(checkpoint: dict[str, Any]) -> None:
    """Restore the histories that :func:`to_plain` replaced, in place.

    Args:
        checkpoint: What was loaded; a checkpoint of MMEngine's own runner
            stays as it is.
    """
    scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
    for name, value in scalars.items():
        if isinstance(value, dict):
            scalars[name] = HistoryBuffer(
                value['log_history'].cpu().numpy(),
                value['count_history'].cpu().numpy(),
                value['max_length'],
            )


def _plain(value: Any) -> Any:
    if isinstance(value, HistoryBuffer):
        logs, counts = value.data
        return dict(
            log_history=torch.from_numpy(np.array(logs)),
            count_history=torch.from_numpy(np.array(counts)),
            max_length=value.max_length,
        )
    # numpy scalars, such as the best score
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if not callable(item)}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value
