"""What a person sees of a run: a progress bar, and loss curves at its end."""

from __future__ import annotations

import atexit
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kpu_mm.registry import HOOKS
from kpu_mm.visualization import loss_curves, read_log


@HOOKS.register_module()
class ProgressHook(Hook):
    """A progress bar with the time left, and loss curves in the work directory.

    The bar is drawn on terminals only. ``losses.png`` is drawn at the end
    from the values that the run has logged.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def before_train(self, runner: Runner) -> None:
        """Start the bar.

        Args:
            runner: The runner.
        """
        console = Console(stderr=True)
        if runner.rank == 0 and console.is_terminal:
            self.bar = Progress(
                TextColumn('distilling'),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn('left'),
                TimeRemainingColumn(),
                console=console,
            )
            self.bar.add_task('', total=runner.max_iters, completed=runner.iter)
            self.bar.start()
            # An error ends training without after_train; the cursor must come back.
            atexit.register(self.bar.stop)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Move the bar.

        Args:
            runner: The runner.
            batch_idx: The iteration.
            data_batch: Not used. Defaults to None.
            outputs: Not used. Defaults to None.
        """
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=batch_idx + 1)

    def after_train(self, runner: Runner) -> None:
        """Stop the bar and draw the losses.

        Args:
            runner: The runner.
        """
        if self.bar is not None:
            self.bar.stop()
        log = read_log(runner.work_dir) if runner.rank == 0 else []
        if log:
            loss_curves(log).savefig(Path(runner.work_dir) / 'losses.png', dpi=120)
