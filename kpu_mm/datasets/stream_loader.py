"""Loaders of one stream and of several: endless, seeded, resumable."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, TypedDict

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import DataLoader, Dataset, Sampler

from kpu_mm.registry import DATA_SAMPLERS, FUNCTIONS

from .endless_dataset import EndlessDataset, build_dataset
from .image_order import stable_hash

_SHUFFLING = ('DefaultSampler', 'InfiniteSampler')


@DATA_SAMPLERS.register_module()
class PositionSampler(Sampler[int]):
    """Endless positions for one process, resumable at any iteration.

    Item ``j`` of process ``r`` at iteration ``i`` is position
    ``(i * world_size + r) * batch_size + j``: two processes with batches of
    B see what one process with batches of 2B sees.

    Args:
        dataset: A dataset that takes endless positions. One with
            ``set_batch_size`` is told the images of an iteration in all
            processes.
        batch_size: Images of one process in one iteration.
        seed: Handed to ``dataset.set_seed``. Defaults to None, leave the
            dataset as it is.
        rank: Number of this process. Defaults to None, MMEngine's.
        world_size: Number of processes. Defaults to None, MMEngine's.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f'`batch_size` must be >= 1, got {batch_size}.')
        if seed is not None:
            dataset.set_seed(seed)  # type: ignore[attr-defined]
        own_rank, own_world_size = get_dist_info()
        self.batch_size = batch_size
        self.rank = own_rank if rank is None else rank
        self.world_size = own_world_size if world_size is None else world_size
        if hasattr(dataset, 'set_batch_size'):
            dataset.set_batch_size(self.batch_size * self.world_size)
        self._dataset = dataset
        self._iteration = 0

    def start(self, iteration: int) -> None:
        """Let the next ``iter`` begin at an iteration."""
        if iteration < 0:
            raise ValueError(f'`iteration` must be >= 0, got {iteration}.')
        self._iteration = iteration

    def __len__(self) -> int:
        """This process's share of the images; the order itself is endless."""
        images = len(self._dataset)  # type: ignore[arg-type]
        return -(-images // self.world_size)

    def __iter__(self) -> Iterator[int]:
        iteration = self._iteration
        while True:
            # All processes' images of an iteration follow each other.
            first = iteration * self.world_size + self.rank
            first *= self.batch_size
            yield from range(first, first + self.batch_size)
            iteration += 1


class StreamLoader(DataLoader):
    """A DataLoader over positions; :func:`build_stream` makes it."""

    def set_seed(self, seed: int) -> None:
        """Choose order and random transforms from the next ``iter`` on."""
        self.dataset.set_seed(seed)  # type: ignore[attr-defined]

    def start_at(self, iteration: int) -> None:
        """Let the next ``iter`` begin at an iteration, at no cost."""
        assert isinstance(self.sampler, PositionSampler)
        self.sampler.start(iteration)

    def close(self) -> None:
        """Let go of persistent workers; iterating again starts new ones."""
        self._iterator = None


def build_stream(
    dataset: dict[str, Any] | Dataset,
    batch_size: int,
    num_workers: int = 0,
    collate_fn: dict[str, Any] | None = None,
    pin_memory: bool | None = None,
    prefetch_factor: int | None = None,
    persistent_workers: bool = False,
    drop_last: bool = False,
    sampler: Mapping[str, Any] | None = None,
    batch_sampler: None = None,
) -> StreamLoader:
    """Build the loader of one stream from a dataloader's config.

    The order follows from seed and position alone. A config made for
    MMEngine's runner fits if its sampler only asks for shuffling.

    Args:
        dataset: Dataset config or dataset. One without ``set_seed`` is
            wrapped in :class:`EndlessDataset`.
        batch_size: Images of one process in one iteration.
        num_workers: Processes that load. Defaults to 0, the training
            process itself.
        collate_fn: Collate function and its arguments. Defaults to None,
            ``dict(type='kpu_mm.stack_images')`` for streams without labels
            and MMEngine's ``pseudo_collate`` for wrapped datasets.
        pin_memory: Hand batches over in page-locked memory. Defaults to
            None, if CUDA is available.
        prefetch_factor: Batches each worker keeps ready. Defaults to None,
            torch's.
        persistent_workers: Keep workers between iterations over the loader.
            Defaults to False.
        drop_last: Holds either way, as no batch of an endless stream is
            short. Defaults to False.
        sampler: None, or MMEngine's ``DefaultSampler`` or
            ``InfiniteSampler`` with ``shuffle=True``, for which the stream's
            own shuffled order stands in. Defaults to None.
        batch_sampler: Only None, as batches follow the order. Defaults to
            None.

    Raises:
        ValueError: If a sampler asks for another order, the dataset is
            empty, its groups of like images do not fill whole batches or the
            collate function is not registered.
    """
    _check_order(sampler, batch_sampler)
    samples: Any = build_dataset(dataset) if isinstance(dataset, dict) else dataset
    collate = dict(collate_fn or {'type': 'kpu_mm.stack_images'})
    if not hasattr(samples, 'set_seed'):
        samples = EndlessDataset(samples)
        collate = dict(collate_fn or {'type': 'pseudo_collate'})
    group_size = getattr(samples, 'group_size', 1)
    if group_size > 1 and group_size % batch_size:
        raise ValueError(
            f'batch_size={batch_size} would join images of different groups of '
            f"{group_size}; set the dataset's `group_size` to the batch size or a multiple of it."
        )
    name = collate.pop('type')
    function = FUNCTIONS.get(name) if isinstance(name, str) else name
    if function is None:
        raise ValueError(f"The collate function '{name}' is not registered.")
    return StreamLoader(
        samples,
        batch_size=batch_size,
        sampler=PositionSampler(samples, batch_size),
        num_workers=num_workers,
        collate_fn=partial(function, **collate) if collate else function,
        pin_memory=(torch.cuda.is_available() if pin_memory is None else pin_memory),
        prefetch_factor=prefetch_factor,
        persistent_workers=persistent_workers,
        drop_last=drop_last,
        worker_init_fn=start_worker,
        # A generator of its own: torch would otherwise draw the workers'
        # seeds from the global one and so disturb the training.
        generator=torch.Generator(),
    )


def _check_order(sampler: Mapping[str, Any] | None, batch_sampler: Any) -> None:
    """Refuse what asks for another order than the stream's own."""
    if batch_sampler is not None:
        raise ValueError(
            f'batch_sampler={batch_sampler}: batches follow the resumable order, which no batch '
            'sampler can change; set `batch_sampler=None`.'
        )
    if sampler is None:
        return
    options = {'shuffle': True, **sampler}
    options.pop('_scope_', None)
    kind = options.pop('type', None)
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    if name.split('.')[-1] not in _SHUFFLING or options != {'shuffle': True}:
        raise ValueError(
            f'sampler={dict(sampler)}: the order follows from the seed, so '
            f'only {" and ".join(_SHUFFLING)} with shuffle=True and nothing '
            'else fit; set one of them or `sampler=None`.'
        )


def start_worker(worker: int) -> None:
    """Make a worker single-threaded and leave Ctrl-C to its parent.

    Args:
        worker: Its number.
    """
    # Workers share the cores: more threads would only compete.
    torch.set_num_threads(1)
    if 'cv2' in sys.modules:
        sys.modules['cv2'].setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class StreamsBatch(TypedDict):
    """What one iteration trains on: a batch for every stream."""

    streams: dict[str, Any]


class StreamDatasets(dict[str, Dataset]):
    """Datasets by stream."""

    @property
    def metainfo(self) -> dict[str, Any]:
        """Meta information of each dataset with labels."""
        return {
            name: dataset.metainfo for name, dataset in self.items() if hasattr(dataset, 'metainfo')
        }


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

    def __init__(self, streams: Mapping[str, Mapping[str, Any]], seed: int = 0) -> None:
        if not streams:
            raise ValueError('`streams` is empty; name at least one stream.')
        self.loaders: dict[str, StreamLoader] = {}
        for name, config in streams.items():
            try:
                loader = build_stream(**config)
            except (TypeError, ValueError) as error:
                raise type(error)(f"Stream '{name}': {error}") from error
            self.loaders[name] = loader
        self.set_seed(seed)
        self._iteration = 0
        self._iterators: dict[str, Iterator[Any]] = {}

    @property
    def dataset(self) -> StreamDatasets:
        """The dataset of each stream."""
        return StreamDatasets({name: item.dataset for name, item in self.loaders.items()})

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
            # Streams over the same images have orders of their own.
            loader.set_seed(stable_hash(seed, name))

    def start_at(self, iteration: int) -> None:
        """Let the next ``iter`` begin at an iteration, at no cost."""
        for loader in self.loaders.values():
            loader.start_at(iteration)
        self._iteration = iteration

    def __iter__(self) -> Iterator[StreamsBatch]:
        self.close()
        iteration = self._iteration
        # All workers start before the first batch is waited for.
        for name, loader in self.loaders.items():
            self._iterators[name] = iter(loader)
        while self._iterators:
            yield StreamsBatch(streams={name: self._next(name, iteration) for name in self.loaders})
            iteration += 1

    def _next(self, name: str, iteration: int) -> Any:
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
            loader.close()
