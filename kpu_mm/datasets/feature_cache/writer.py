"""Write a feature cache, chunk by chunk, resumably."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from kpu_mm.structures import Features

from ..errors import CorruptImageError
from ..sources.index_cache import atomic_file
from ..stream_loader import start_worker
from ..unlabeled_dataset import UnlabeledImages
from .chunk import Chunk, ChunkError, Entry, Stamp, pack, thumbnail
from .feature_cache import chunk_path, read_index, write_index

Extract = Callable[[Sequence[Tensor]], list[Features]]
Key = tuple[int, int]  # view and image
_PROGRESS_SECONDS = 10.0


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


class WriteReport(NamedTuple):
    """What became of a plan.

    Args:
        written: Chunks that this process wrote.
        kept: Chunks that were there.
        corrupt: Name and reason of each corrupt image in what was written.
        finished: Whether all chunks, of all processes, are there now.
    """

    written: int
    kept: int
    corrupt: list[tuple[str, str]]
    finished: bool


def write_features(
    plan: CachePlan,
    extract: Extract,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> WriteReport:
    """Write the chunks that are not there yet.

    Args:
        plan: What goes where.
        extract: The teacher: images (3, h, w) to features, image by image.
        workers: Processes that load images. Defaults to 0, this one.
        rank: Number of this process. Defaults to 0.
        world_size: Number of processes, which share the chunks. Defaults
            to 1.

    Raises:
        ValueError: If features do not fit into the stored type.
    """
    known = read_index(plan.folder) or []
    mine = plan.chunks[rank::world_size]
    todo = [chunk for chunk in mine if not _is_whole(plan, chunk, known)]
    dtype = getattr(torch, plan.record['dtype'])
    corrupt, told, started = [], time.monotonic(), time.monotonic()
    loaded = iter(_load(plan, todo, workers))
    for done, chunk in enumerate(todo, 1):
        entries: list[Entry | None] = []
        for _ in plan.batches(chunk):
            samples = next(loaded)
            entries += _see([s for s, _ in samples], extract)
            corrupt += [reason for _, reason in samples if reason is not None]
        _write(chunk_path(plan.folder, *chunk), pack(entries, dtype))
        if time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            left = (told - started) / done * (len(todo) - done)
            print_log(
                f'{plan.folder.name}: chunk {done} of {len(todo)}, '
                f'{left / 60:.1f} min left',
                logger='current',
            )
    finished = _finish(plan)
    return WriteReport(len(todo), len(mine) - len(todo), corrupt, finished)


def verify(plan: CachePlan) -> Iterator[tuple[Path, str | None]]:
    """Read the whole cache.

    Args:
        plan: What is where.

    Yields:
        Each chunk and what is wrong with it, or None.
    """
    known = read_index(plan.folder) or []
    for chunk in plan.chunks:
        fault = None
        try:
            opened = plan.open(chunk, _known_stamp(known, chunk))
            for index in range(len(opened)):
                opened.read(index)
        except ChunkError as error:
            fault = str(error)
        yield chunk_path(plan.folder, *chunk), fault


def _see(images: Sequence[Tensor | None], extract: Extract) -> list[Any]:
    """Entries of a batch, None for a corrupt image."""
    good = [image for image in images if image is not None]
    features = iter(extract(good) if good else [])
    return [
        None if image is None else Entry(next(features), thumbnail(image))
        for image in images
    ]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f'{path.name}.*.tmp'):
        leftover.unlink()
    with atomic_file(path) as file:
        file.write(content)


def _known_stamp(known: list[list[Stamp]], chunk: Key) -> Stamp | None:
    """What the index of an earlier run says of a chunk."""
    view, number = chunk
    return known[view][number] if view < len(known) else None


def _is_whole(plan: CachePlan, chunk: Key, known: list[list[Stamp]]) -> bool:
    try:
        plan.open(chunk, _known_stamp(known, chunk))
    except ChunkError:
        return False
    return True


def _finish(plan: CachePlan) -> bool:
    """Write the index if every chunk is there, whoever wrote it."""
    stamps: list[list[Stamp]] = [[] for _ in range(plan.record['views'])]
    try:
        for chunk in plan.chunks:
            stamps[chunk[0]].append(plan.open(chunk).stamp)
    except ChunkError:
        return False
    write_index(plan.folder, stamps)
    return True


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


def _load(plan: CachePlan, chunks: Sequence[Key], workers: int) -> DataLoader:
    """Load the batches of some chunks, one after the other."""
    return DataLoader(
        _Views(plan.images),
        batch_sampler=_Batches(plan, chunks),
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=start_worker,
        generator=torch.Generator(),
    )
