"""One loader per stream, all advancing together."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, TypedDict

import torch
from torch.utils.data import DataLoader, Dataset

from ..registry import DATASETS, FUNCTIONS
from .collate import ImageBatch
from .hashing import stable_hash
from .position_sampler import PositionSampler


class StreamsBatch(TypedDict):
    """What one iteration trains on: a batch for every stream."""

    streams: dict[str, ImageBatch]


class StreamDatasets(dict[str, Dataset]):
    """Datasets by stream; without labels there is no meta information."""

    metainfo: ClassVar[dict[str, Any]] = {}


class MultiStreamLoader:
    """Endless batches from several streams, resumable at any iteration.

    Each stream has its own images, sizes, batch size and workers. What an
    iteration yields depends on the seed, the iteration and the number of
    processes alone, not on the number of workers.

    Args:
        streams: For each stream's name, the arguments of
            :func:`build_stream`.
        seed: Order and random transforms of all streams. Defaults to 0.
    """

    def __init__(
        self, streams: Mapping[str, Mapping[str, Any]], seed: int = 0
    ) -> None:
        if not streams:
            raise ValueError('`streams` is empty; name at least one stream.')
        self.loaders: dict[str, DataLoader] = {}
        for name, config in streams.items():
            try:
                loader = build_stream(**config)
            except (TypeError, ValueError) as error:
                raise type(error)(f"Stream '{name}': {error}") from error
            self.loaders[name] = loader
        self.set_seed(seed)
        self._iteration = 0
        self._iterators: dict[str, Iterator[ImageBatch]] = {}

    @property
    def dataset(self) -> StreamDatasets:
        """The dataset of each stream."""
        return StreamDatasets(
            {name: item.dataset for name, item in self.loaders.items()}
        )

    def __len__(self) -> int:
        """Iterations in which every stream has seen all of its images."""
        return max(len(loader) for loader in self.loaders.values())

    @property
    def batch_size(self) -> int:
        """Images of all streams that this process takes an iteration."""
        return sum(item.batch_size or 0 for item in self.loaders.values())

    def set_seed(self, seed: int) -> None:
        """Choose order and random transforms from the next ``iter`` on."""
        for name, loader in self.loaders.items():
            loader.dataset.set_seed(  # type: ignore[attr-defined]
                stable_hash(seed, name)
            )

    def start_at(self, iteration: int) -> None:
        """Let the next ``iter`` begin at an iteration, at no cost."""
        for loader in self.loaders.values():
            sampler = loader.sampler
            assert isinstance(sampler, PositionSampler)
            sampler.start(iteration)
        self._iteration = iteration

    def __iter__(self) -> Iterator[StreamsBatch]:
        self.close()
        iteration = self._iteration
        # All workers start before the first batch is waited for.
        for name, loader in self.loaders.items():
            self._iterators[name] = iter(loader)
        while self._iterators:
            yield StreamsBatch(
                streams={
                    name: self._next(name, iteration) for name in self.loaders
                }
            )
            iteration += 1

    def _next(self, name: str, iteration: int) -> ImageBatch:
        """Fetch the next batch of a stream, naming the stream if it fails."""
        try:
            return next(self._iterators[name])
        except Exception as error:
            self.close()
            raise RuntimeError(
                f"Stream '{name}' failed at iteration {iteration}: {error}"
            ) from error

    def close(self) -> None:
        """Stop all workers; iterating again starts new ones."""
        self._iterators.clear()
        for loader in self.loaders.values():
            # A loader with persistent workers keeps its own reference.
            loader._iterator = None


def build_stream(
    dataset: dict[str, Any] | Dataset,
    batch_size: int,
    num_workers: int = 0,
    collate_fn: dict[str, Any] | None = None,
    pin_memory: bool | None = None,
    prefetch_factor: int | None = None,
    persistent_workers: bool = False,
) -> DataLoader:
    """Build the loader of one stream.

    Args:
        dataset: Dataset config or dataset that takes endless positions.
        batch_size: Images of one process in one iteration.
        num_workers: Processes that load. Defaults to 0, the training
            process itself.
        collate_fn: Collate function and its arguments. Defaults to None,
            ``dict(type='kpu_mm.stack_images')``.
        pin_memory: Hand batches over in page-locked memory. Defaults to
            None, if CUDA is available.
        prefetch_factor: Batches each worker keeps ready. Defaults to None,
            torch's.
        persistent_workers: Keep workers between iterations over the loader.
            Defaults to False.
    """
    images: Dataset = (
        DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
    )
    collate = dict(collate_fn or {'type': 'kpu_mm.stack_images'})
    name = collate.pop('type')
    function = FUNCTIONS.get(name) if isinstance(name, str) else name
    if function is None:
        raise ValueError(f"The collate function '{name}' is not registered.")
    return DataLoader(
        images,
        batch_size=batch_size,
        sampler=PositionSampler(images, batch_size),
        num_workers=num_workers,
        collate_fn=partial(function, **collate) if collate else function,
        pin_memory=(
            torch.cuda.is_available() if pin_memory is None else pin_memory
        ),
        prefetch_factor=prefetch_factor,
        persistent_workers=persistent_workers,
        worker_init_fn=_start_worker,
        # A generator of its own: torch would otherwise draw the workers'
        # seeds from the global one and so disturb the training.
        generator=torch.Generator(),
    )


def _start_worker(worker: int) -> None:
    """Make a worker single-threaded and leave Ctrl-C to its parent."""
    torch.set_num_threads(1)
    if 'cv2' in sys.modules:
        sys.modules['cv2'].setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
