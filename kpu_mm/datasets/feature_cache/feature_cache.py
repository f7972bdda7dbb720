"""A teacher's features of a stream's images, read from files."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CorruptImageError
from ..sources.index_cache import atomic_file
from .chunk import Chunk, ChunkError, Stamp, thumbnail
from .record import read_record, refuse_other
from .stored_features import StoredFeatures

_INDEX = 'index.json'
_OPEN = 32
# Grey levels that another decoder or resizing kernel may make.
_TOLERANCE = 4
TOOL = 'tools/dataset_tools/cache_features.py'


class FeatureCache:
    """A finished cache of one teacher, open for reading.

    Every read is checked: the features against their CRC-32, the image
    against the thumbnail of the one that the teacher saw.

    Args:
        folder: What the tool wrote for this teacher.

    Raises:
        ValueError: If there is no finished cache, or a chunk is missing or
            cut short.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record = open_record(self.folder)
        stamps = read_index(self.folder)
        if stamps is None:
            raise ValueError(
                f"The feature cache '{folder}' is not finished; run {TOOL} "
                'again, which goes on where it was interrupted.'
            )
        self._stamps = stamps
        for view, chunks in enumerate(stamps):
            for number, stamp in enumerate(chunks):
                path = chunk_path(self.folder, view, number)
                if not path.is_file():
                    raise ValueError(_damage(path, 'is missing'))
                if path.stat().st_size != stamp.size:
                    raise ValueError(_damage(path, 'is cut short or altered'))
        self._chunks: OrderedDict[Path, Chunk] = OrderedDict()

    @property
    def views(self) -> int:
        """How many views of each image there are."""
        return len(self._stamps)

    def check(self, views: int | None, **parts: Any) -> None:
        """Compare the record with what a run has.

        Args:
            views: How many views of an image it uses; None for all.
            **parts: Parts of the record by name.

        Raises:
            ValueError: If one differs, or there are fewer views.
        """
        refuse_other(self.folder, self.record, parts)
        if views is not None and views > self.views:
            raise ValueError(
                f"The feature cache '{self.folder}' has {self.views} views of "
                f'an image, and the stream has views={views}; lower that, or '
                f'run {TOOL} with --views {views}, which adds the others.'
            )

    def read(self, image: int, view: int, pixels: Tensor) -> StoredFeatures:
        """Read the features of one image.

        Args:
            image: Its number among all images of the stream.
            view: Which view of it.
            pixels: What the pipeline made of it, (3, H, W) uint8.

        Raises:
            CorruptImageError: If the image was corrupt for the tool.
            RuntimeError: If a chunk or the image is altered.
        """
        number, place = divmod(image, self.record['images_per_chunk'])
        path = chunk_path(self.folder, view, number)
        try:
            chunk = self._open(path, self._stamps[view][number])
            entry = chunk.read(place)
        except ChunkError as error:
            raise RuntimeError(_damage(path, str(error))) from error
        if entry is None:
            reason = 'it was corrupt when its features were stored'
            raise CorruptImageError(f'image {image}', reason)
        seen = thumbnail(pixels).int()
        if (seen - entry.thumbnail).abs().max() > _TOLERANCE:
            raise RuntimeError(
                f'view {view} of image {image} is not what the teacher saw '
                'when its features were stored: the image or a transform is '
                f"altered; delete '{path}' and run {TOOL} again, or make "
                'another cache.'
            )
        return StoredFeatures(self.record['id'], entry.features)

    def _open(self, path: Path, stamp: Stamp) -> Chunk:
        """Open a chunk, or take the one that is open."""
        chunk = self._chunks.pop(path, None)
        if chunk is None:
            chunk = Chunk(path, stamp)
            while len(self._chunks) >= _OPEN:
                self._chunks.popitem(last=False)
        self._chunks[path] = chunk
        return chunk

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_chunks': OrderedDict()}


def open_record(folder: Path) -> dict[str, Any]:
    """Read the record of a cache that must be there.

    Args:
        folder: The cache.

    Raises:
        ValueError: If there is none.
    """
    record = read_record(folder)
    if record is None:
        raise ValueError(
            f"There is no feature cache '{folder}'; correct the path, or "
            f'make one with {TOOL}.'
        )
    return record


def chunk_path(folder: Path, view: int, number: int) -> Path:
    """Where a chunk is.

    Args:
        folder: The cache.
        view: Which view of the images.
        number: Which chunk of the view.
    """
    return folder / f'view-{view:03d}' / f'chunk-{number:06d}.safetensors'


def write_index(folder: Path, stamps: list[list[Stamp]]) -> None:
    """Record all chunks of a finished cache.

    Args:
        folder: The cache.
        stamps: For each view, each chunk's.
    """
    with atomic_file(folder / _INDEX) as file:
        file.write(json.dumps(stamps).encode() + b'\n')


def read_index(folder: Path) -> list[list[Stamp]] | None:
    """Read what :func:`write_index` wrote; None if it is not whole.

    Args:
        folder: The cache.
    """
    try:
        views = json.loads((folder / _INDEX).read_bytes())
        return [[Stamp(*map(int, chunk)) for chunk in view] for view in views]
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _damage(path: Path, what: str) -> str:
    return (
        f"The features in '{path}' cannot be used: the file {what}; delete "
        f'it and run {TOOL} again, which writes this file only.'
    )
