"""Train loops that continue exactly where they were stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import CheckpointHook
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.runner.utils import set_random_seed

from kpu_mm.datasets import MultiStreamLoader, StreamLoader, build_stream
from kpu_mm.models.multi_stream_model import MultiStreamModel
from kpu_mm.registry import LOOPS

from .model_wrappers import unwrap


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
        super().__init__(runner, loader, max_iters, val_begin, val_interval, dynamic_intervals)
        # It takes the place of MMEngine's iterator, which would draw and
        # throw away all batches up to the iteration of a resumed run.
        self.dataloader_iterator = _LoopIterator(loader, runner)

    def build_loader(self, dataloader: dict[str, Any]) -> StreamLoader | MultiStreamLoader:
        """Build what the loop iterates over.

        Args:
            dataloader: The loop's ``dataloader``.
        """
        return build_stream(**dataloader)

    def run(self) -> Any:
        """Train, and end the loaders' workers whatever happens.

        Raises:
            ValueError: If a scheduler or a hook that saves counts epochs.
        """
        self._refuse_epochs()
        try:
            return super().run()
        finally:
            self.dataloader_iterator.close()

    def _refuse_epochs(self) -> None:
        schedulers = self.runner.param_schedulers or []
        if isinstance(schedulers, dict):  # one list for each optimiser
            schedulers = [scheduler for group in schedulers.values() for scheduler in group]
        savers = [hook for hook in self.runner.hooks if isinstance(hook, CheckpointHook)]
        for part in (*schedulers, *savers):
            if part.by_epoch:
                raise ValueError(
                    f'{type(part).__name__} has by_epoch=True, but {type(self).__name__} has '
                    'no epochs, so it would never act: set by_epoch=False and count iterations.'
                )

    def run_iter(self, data_batch: Any) -> None:
        """Take one training step.

        Args:
            data_batch: What the loader yields.
        """
        # A large prime keeps the seeds of ranks and iterations apart.
        set_random_seed((self.runner.seed + 1_000_003 * get_rank() + self._iter) % 2**32)
        super().run_iter(data_batch)


@LOOPS.register_module()
class MultiStreamTrainLoop(ResumableTrainLoop):
    """Resumable training over {name: batch} of several streams.

    Takes the arguments of :class:`ResumableTrainLoop`, of which
    ``dataloader`` has one dataloader's config for each stream.
    """

    def build_loader(self, dataloader: dict[str, Any]) -> MultiStreamLoader:
        """Build the loader of all streams.

        Args:
            dataloader: For each stream's name, its dataloader's config.
        """
        return MultiStreamLoader(dataloader)

    def run(self) -> Any:
        """Train, if the streams are those that the model needs.

        Raises:
            ValueError: If a stream is missing or is not used.
        """
        model = unwrap(self.runner.model)
        if isinstance(model, MultiStreamModel):
            model.check_streams(self.dataloader.loaders)
        return super().run()


class _LoopIterator:
    """The iterator that ``IterBasedTrainLoop`` needs.

    The loader starts at the first ``next``: only then does a resumed runner
    know its seed and its iteration.
    """

    def __init__(self, loader: StreamLoader | MultiStreamLoader, runner: Runner) -> None:
        self._loader = loader
        self._runner = runner
        self._iterator: Iterator[Any] | None = None

    def skip_iter(self, num_iters: int) -> None:
        # The order is a function of the position, so nothing is read here.
        self._loader.start_at(num_iters)

    def __next__(self) -> Any:
        if self._iterator is None:
            self._loader.set_seed(self._runner.seed)
            self._iterator = iter(self._loader)
        return next(self._iterator)

    def close(self) -> None:
        self._iterator = None
        self._loader.close()
