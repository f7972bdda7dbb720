"""Write a feature cache, chunk by chunk, resumably."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor

from kpu_mm.structures import Features

from ..sources.index_cache import atomic_file
from .chunk import ChunkError, Entry, Stamp, pack, thumbnail
from .feature_cache import chunk_path, read_index, write_index
from .plan import CachePlan, Key, load_views

Extract = Callable[[Sequence[Tensor]], list[Features]]
_PROGRESS_SECONDS = 10.0


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
    loaded = iter(load_views(plan, todo, workers))
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
