"""A train loop that continues exactly where it was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_rank
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.runner.utils import set_random_seed

from kpu_mm.datasets import MultiStreamLoader, StreamLoader, build_stream
from kpu_mm.registry import LOOPS


@LOOPS.register_module()
class ResumableTrainLoop(IterBasedTrainLoop):
    """Iteration-based training of any OpenMMLab model, exact on resume.

    The random state of the model is set anew in each iteration from seed,
    rank and iteration, and each sample's from seed and position, so a
    resumed run continues exactly, with any number of workers, and no random
    state needs saving.

    Args:
        runner: The runner.
        dataloader: A dataloader's config, the arguments of
            :func:`kpu_mm.datasets.build_stream`.
        max_iters: Iterations to train.
        val_begin: First iteration that may validate. Defaults to 1.
        val_interval: Iterations between validations. Defaults to 1000.
        dynamic_intervals: (first iteration, interval from then on) of
            further validation intervals. Defaults to None.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict[str, Any],
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        loader = self.build_loader(dataloader)
        super().__init__(
            runner,
            loader,
            max_iters,
            val_begin,
            val_interval,
            dynamic_intervals,
        )
        self.dataloader_iterator = _LoopIterator(loader, runner)

    def build_loader(
        self, dataloader: dict[str, Any]
    ) -> StreamLoader | MultiStreamLoader:
        """Build what the loop iterates over.

        Args:
            dataloader: The loop's ``dataloader``.
        """
        return build_stream(**dataloader)

    def run(self) -> Any:
        """Train, and end the loaders' workers whatever happens."""
        try:
            return super().run()
        finally:
            self.dataloader_iterator.close()

    def run_iter(self, data_batch: Any) -> None:
        """One training step.

        Args:
            data_batch: What the loader yields.
        """
        # A large prime keeps the seeds of ranks and iterations apart.
        set_random_seed(
            (self.runner.seed + 1_000_003 * get_rank() + self._iter) % 2**32
        )
        super().run_iter(data_batch)


class _LoopIterator:
    """What ``IterBasedTrainLoop`` asks of its iterator.

    The loader starts at the first request, when a resumed runner knows its
    seed and its iteration.
    """

    def __init__(
        self, loader: StreamLoader | MultiStreamLoader, runner: Runner
    ) -> None:
        self._loader = loader
        self._runner = runner
        self._iterator: Iterator[Any] | None = None

    def skip_iter(self, num_iters: int) -> None:
        self._loader.start_at(num_iters)

    def __next__(self) -> Any:
        if self._iterator is None:
            self._loader.set_seed(self._runner.seed)
            self._iterator = iter(self._loader)
        return next(self._iterator)

    def close(self) -> None:
        self._iterator = None
        self._loader.close()
