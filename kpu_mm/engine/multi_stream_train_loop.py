"""A train loop that gives the model one batch of every stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_rank
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.runner.utils import set_random_seed

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.datasets.multi_stream_loader import StreamsBatch
from kpu_mm.registry import LOOPS


@LOOPS.register_module()
class MultiStreamTrainLoop(IterBasedTrainLoop):
    """Iteration-based training over {name: batch} of several streams.

    The random state of the model is set anew in each iteration from seed,
    rank and iteration, and each sample's from seed and position, so a
    resumed run continues exactly and no random state needs saving.

    Args:
        runner: The runner.
        dataloader: For each stream, its dataloader's config.
        max_iters: Iterations to train.
        val_begin: First iteration that may validate. Defaults to 1.
        val_interval: Iterations between validations. Defaults to 1000.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict[str, dict[str, Any]],
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
    ) -> None:
        loader = MultiStreamLoader(dataloader, seed=runner.seed)
        super().__init__(runner, loader, max_iters, val_begin, val_interval)
        self.dataloader_iterator = _StreamIterator(loader, runner)

    def run(self) -> Any:
        """Train, and end the loaders' workers whatever happens."""
        try:
            return super().run()
        finally:
            self.dataloader.close()

    def run_iter(self, data_batch: dict[str, Any]) -> None:
        """One training step.

        Args:
            data_batch: ``dict(streams={name: batch})``.
        """
        # A large prime keeps the seeds of ranks and iterations apart.
        set_random_seed(
            (self.runner.seed + 1_000_003 * get_rank() + self._iter) % 2**32
        )
        super().run_iter(data_batch)


class _StreamIterator:
    """What ``IterBasedTrainLoop`` asks of its iterator.

    The loaders start at the first request, when a resumed runner knows its
    seed and its iteration.
    """

    def __init__(self, loader: MultiStreamLoader, runner: Runner) -> None:
        self._loader = loader
        self._runner = runner
        self._iterator: Iterator[StreamsBatch] | None = None

    def skip_iter(self, num_iters: int) -> None:
        self._loader.start_at(num_iters)

    def __next__(self) -> StreamsBatch:
        if self._iterator is None:
            self._loader.set_seed(self._runner.seed)
            self._iterator = iter(self._loader)
        return next(self._iterator)
