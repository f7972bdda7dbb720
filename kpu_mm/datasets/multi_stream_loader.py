"""One loader per stream, all advancing together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

from torch.utils.data import Dataset

from .image_order import stable_hash
from .stream_loader import StreamLoader, build_stream


class StreamsBatch(TypedDict):
    """What one iteration trains on: a batch for every stream."""

    streams: dict[str, Any]


class StreamDatasets(dict[str, Dataset]):
    """Datasets by stream."""

    @property
    def metainfo(self) -> dict[str, Any]:
        """Meta information of each dataset with labels."""
        return {
            name: dataset.metainfo
            for name, dataset in self.items()
            if hasattr(dataset, 'metainfo')
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

    def __init__(
        self, streams: Mapping[str, Mapping[str, Any]], seed: int = 0
    ) -> None:
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
            yield StreamsBatch(
                streams={
                    name: self._next(name, iteration) for name in self.loaders
                }
            )
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
