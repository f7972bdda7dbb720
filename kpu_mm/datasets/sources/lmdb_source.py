"""Images inside an LMDB database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...registry import DATASETS
from ..errors import CorruptImageError
from ..hashing import stable_hash
from .index_cache import (
    atomic_file,
    cache_folder,
    file_stamp,
    locked,
)
from .line_list import LineList


@DATASETS.register_module()
class LmdbSource:
    """The values of an LMDB database, one encoded image each.

    Keys that start with two underscores, such as ``__len__``, are not
    images. Needs lmdb.

    Args:
        path: The database: a folder with ``data.mdb`` or a single file.
        cache_dir: Folder for the list of keys. Defaults to
            ``~/.cache/kpu_mm/index``.

    Raises:
        ValueError: If the database is missing or empty.
        ImportError: If lmdb is not installed.
    """

    def __init__(self, path: str, cache_dir: str | None = None) -> None:
        _import_lmdb()
        self._path = Path(path).absolute()
        data = self._path / 'data.mdb' if self._path.is_dir() else self._path
        if not data.is_file():
            raise ValueError(
                f"LMDB database '{path}' does not exist; correct `path`."
            )
        self._environment: Any = None
        self._owner = 0
        folder = cache_folder(cache_dir)
        key = stable_hash(str(data), data.stat().st_size, file_stamp(data))
        listing = folder / f'lmdb-{key:016x}.txt'
        with locked(listing):
            if not listing.is_file():
                self._write_keys(listing)
        if listing.stat().st_size == 0:
            raise ValueError(f"LMDB database '{path}' holds no image.")
        self._keys = LineList(listing, folder)
        self._environment = None

    def __len__(self) -> int:
        return len(self._keys)

    def name(self, index: int) -> str:
        """Return ``database/key`` of an image."""
        return f'{self._path}/{self._keys[index]}'

    def read(self, index: int) -> bytes:
        """Return the encoded image; CorruptImageError if that fails."""
        key = os.fsencode(self._keys[index])
        with self._open().begin() as transaction:
            data = transaction.get(key)
        if data is None:
            raise CorruptImageError(self.name(index), 'the key is gone')
        return bytes(data)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {'_environment': None}

    def _open(self) -> Any:
        """Open the database, once in each process as LMDB demands."""
        if self._environment is None or self._owner != os.getpid():
            self._environment = _import_lmdb().open(
                str(self._path),
                subdir=self._path.is_dir(),
                readonly=True,
                lock=False,
                readahead=False,
            )
            self._owner = os.getpid()
        return self._environment

    def _write_keys(self, listing: Path) -> None:
        """Write all keys of images, one a line."""
        with atomic_file(listing) as file, self._open().begin() as view:
            for key in view.cursor().iternext(keys=True, values=False):
                if b'\n' in key:
                    raise ValueError(
                        f"LMDB database '{self._path}' has the key {key!r} "
                        'with a line break; keys must be text.'
                    )
                if not key.startswith(b'__'):
                    file.write(bytes(key) + b'\n')
        self._environment.close()


def _import_lmdb() -> Any:
    """Import lmdb or say how to get it."""
    try:
        import lmdb
    except ImportError as error:
        raise ImportError(
            'LmdbSource needs lmdb; run `pip install lmdb`.'
        ) from error
    return lmdb
