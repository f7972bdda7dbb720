"""Images inside webdataset tar shards, in any order."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from ...registry import DATASETS
from ..errors import CorruptImageError
from ..hashing import stable_hash
from .file_patterns import find_files
from .image_source import IMAGE_EXTENSIONS, normalised_extensions
from .index_cache import cache_folder, cached_array, file_stamp
from .open_files import OpenFiles
from .tar_index import (
    TarIndex,
    build_tar_index,
    index_path,
    load_tar_index,
    read_tar_index,
    save_tar_index,
)

_PROGRESS_SECONDS = 10.0


@DATASETS.register_module()
class TarSource:
    """The images of tar shards in `webdataset's format
    <https://github.com/webdataset/webdataset>`_, with random access.

    Each shard has an index ``<shard>.idx.npz``, built from the headers when
    missing. One table over all shards is kept in the cache and mapped.

    Args:
        shards: Paths, wildcards or brace ranges such as
            ``'data/train-{000000..001499}.tar'``; uncompressed files.
        extensions: Which members are images, in any case. Defaults to those
            of JPEG, PNG, WebP, BMP and TIFF.
        index_dir: Folder for the indices. Defaults to beside the shards.
        cache_dir: Folder for the table. Defaults to
            ``~/.cache/kpu_mm/index``.

    Raises:
        ValueError: If a shard is missing or broken, an index is stale, or
            there is no image at all.
    """  # noqa: D205

    def __init__(
        self,
        shards: str | Sequence[str],
        extensions: tuple[str, ...] = IMAGE_EXTENSIONS,
        index_dir: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        self._shards = find_files(shards, 'shards')
        self._index_dir = None if index_dir is None else Path(index_dir)
        if self._index_dir is not None:
            self._index_dir.mkdir(parents=True, exist_ok=True)
        self._suffixes = normalised_extensions(tuple(extensions))
        stamps = [file_stamp(shard) for shard in self._shards]
        indices = [index_path(s, self._index_dir) for s in self._shards]
        key = stable_hash(*map(str, self._shards), *self._suffixes)
        self._table = cached_array(
            cache_folder(cache_dir) / f'tar-{key:016x}.npy',
            repr((stamps, [str(i) for i in indices])),
            self._build_table,
        )
        self._read_counts()
        if len(self) == 0:
            raise ValueError(
                f"The shards '{shards}' hold no member ending in "
                f'{", ".join(self._suffixes)}; correct `shards` or '
                '`extensions`.'
            )
        self._files = OpenFiles(self._shards)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def name(self, index: int) -> str:
        """Return ``shard/member`` of an image."""
        shard, offset, _ = self._locate(index)
        # Not checked: the name must come even when the shard is damaged.
        content = read_tar_index(
            index_path(self._shards[shard], self._index_dir)
        )
        member = int(np.searchsorted(content.offsets, offset))
        return f'{self._shards[shard]}/{content.name_list()[member]}'

    def read(self, index: int) -> bytes:
        """Return the encoded image; CorruptImageError if that fails."""
        shard, offset, size = self._locate(index)
        try:
            data = os.pread(self._files[shard], size, offset)
        except OSError as error:
            reason = error.strerror or str(error)
            raise CorruptImageError(self.name(index), reason) from error
        if len(data) != size:
            raise CorruptImageError(self.name(index), 'the shard is cut short')
        return data

    def _locate(self, index: int) -> tuple[int, int, int]:
        """Return an image's shard, offset and size."""
        if not 0 <= index < len(self):
            raise IndexError(f'{index} is outside 0..{len(self) - 1}.')
        shard = int(np.searchsorted(self._ends, index, side='right'))
        # The table is: a count for each shard, then offset, size, ...
        row = len(self._shards) + 2 * index
        offset, size = self._table.values[row : row + 2].tolist()
        return shard, offset, size

    def _read_counts(self) -> None:
        """Keep how many images lie in the shards up to each one."""
        counts = self._table.values[: len(self._shards)]
        self._ends = np.cumsum(counts)

    def _index(self, shard: Path) -> TarIndex:
        """Read the index of one shard, building it when missing."""
        path = index_path(shard, self._index_dir)
        if not path.is_file():
            save_tar_index(build_tar_index(shard), path)
        return load_tar_index(shard, path)

    def _build_table(self) -> np.ndarray:
        """Join the indices: counts, then offset and size of each image."""
        rows, counts, told = [], [], time.monotonic()
        for number, shard in enumerate(self._shards):
            index = self._index(shard)
            images = np.array(
                [
                    n.lower().endswith(self._suffixes)
                    for n in index.name_list()
                ],
                bool,
            )
            pairs = np.stack([index.offsets, index.sizes], 1)[images]
            rows.append(pairs.reshape(-1))
            counts.append(len(pairs))
            if time.monotonic() - told > _PROGRESS_SECONDS:
                told = time.monotonic()
                print_log(
                    f'Indexed {number + 1} of {len(self._shards)} shards',
                    logger='current',
                )
        return np.concatenate([np.array(counts, np.int64), *rows])
