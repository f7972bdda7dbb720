"""What goes into which chunk of a cache, and the images for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import CorruptImageError
from ..stream_loader import start_worker
from ..unlabeled_dataset import UnlabeledImages
from .chunk import Chunk, Stamp
from .feature_cache import chunk_path

Key = tuple[int, int]  # view and image, or view and chunk


class CachePlan(NamedTuple):
    """What goes into which chunk.

    Args:
        folder: The cache.
        record: Its record.
        images: The stream's dataset.
        batch_size: Images that the teacher sees together.
    """

    folder: Path
    record: dict[str, Any]
    images: UnlabeledImages
    batch_size: int

    @property
    def chunks(self) -> list[Key]:
        """View and number of each chunk, in order."""
        per_view = -(-len(self.images) // self.record['images_per_chunk'])
        return list(
            itertools.product(range(self.record['views']), range(per_view))
        )

    def batches(self, chunk: Key) -> list[list[Key]]:
        """View and image of all entries of a chunk, in batches.

        A batch never depends on what was written before, so that the same
        numbers come out of every run.
        """
        view, number = chunk
        size = self.record['images_per_chunk']
        last = min(len(self.images), (number + 1) * size)
        keys = [(view, image) for image in range(number * size, last)]
        step = self.batch_size
        return [keys[i : i + step] for i in range(0, len(keys), step)]

    def missing(self) -> list[Key]:
        """Chunks that have no file."""
        return [
            chunk
            for chunk in self.chunks
            if not chunk_path(self.folder, *chunk).is_file()
        ]

    def open(self, chunk: Key, stamp: Stamp | None = None) -> Chunk:
        """Open a chunk; ChunkError if it is not there or not whole."""
        return Chunk(chunk_path(self.folder, *chunk), stamp)


class _Views(Dataset):
    """Images by view and number; None and the reason for corrupt ones."""

    def __init__(self, images: UnlabeledImages) -> None:
        self.images = images

    def __getitem__(
        self, key: Key
    ) -> tuple[Tensor | None, tuple[str, str] | None]:
        view, image = key
        try:
            return self.images.view(image, view)['image'], None
        except CorruptImageError as error:
            return None, (self.images.name(image), error.reason)


class _Batches:
    """The batches of some chunks; a list would hold every image's number."""

    def __init__(self, plan: CachePlan, chunks: Sequence[Key]) -> None:
        self.plan = plan
        self.chunks = chunks

    def __iter__(self) -> Iterator[list[Key]]:
        for chunk in self.chunks:
            yield from self.plan.batches(chunk)


def load_views(
    plan: CachePlan, chunks: Sequence[Key], workers: int
) -> DataLoader:
    """Load the batches of some chunks, one after the other.

    Args:
        plan: What goes where.
        chunks: View and number of each.
        workers: Processes that load images.

    Returns:
        Lists of images (3, h, w) with None, or of None with name and reason
        of a corrupt image.
    """
    return DataLoader(
        _Views(plan.images),
        batch_sampler=_Batches(plan, chunks),
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=start_worker,
        generator=torch.Generator(),
    )
