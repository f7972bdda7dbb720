"""Index files: written once and whole, mapped by every process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..hashing import stable_hash


def cache_folder(cache_dir: str | None) -> Path:
    """Make and return the folder for index files.

    Args:
        cache_dir: The folder; ``None`` is ``$XDG_CACHE_HOME/kpu_mm/index``,
            which is ``~/.cache/kpu_mm/index`` on most machines.
    """
    if cache_dir is None:
        home = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
        folder = Path(home).expanduser() / 'kpu_mm' / 'index'
    else:
        folder = Path(cache_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def file_stamp(path: str | Path) -> str:
    """Tell one version of a file from another by its size and time."""
    status = Path(path).stat()
    return f'{path}|{status.st_size}|{status.st_mtime_ns}'


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name only when complete."""
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        with temporary.open('wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process of a machine build ``path`` while others wait."""
    with path.with_name(f'{path.name}.lock').open('wb') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class MappedArray:
    """Read-only int64 numbers in a file, shared by all processes.

    The file is mapped at first use in each process; pickling carries its
    path only, so that workers never copy the numbers.

    Args:
        path: A ``.npy`` file: a stamp, then the numbers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: np.ndarray | None = None

    @property
    def values(self) -> np.ndarray:
        """The numbers, (N,) int64."""
        if self._values is None:
            mapped = np.load(self.path, mmap_mode='r', allow_pickle=False)
            # Element access of a plain view is several times faster.
            self._values = mapped.view(np.ndarray)[1:]
        return self._values

    def __getstate__(self) -> dict[str, Any]:
        return {'path': self.path, '_values': None}


def cached_array(
    path: Path, stamp: str, build: Callable[[], np.ndarray]
) -> MappedArray:
    """Map the numbers at ``path``, building them when missing or stale.

    Args:
        path: The ``.npy`` file.
        stamp: Describes what the numbers were made from.
        build: Returns the numbers, (N,) int64.
    """
    number = stable_hash(stamp)
    if not _is_current(path, number):
        with locked(path):
            if not _is_current(path, number):
                values = np.append(np.int64(number), build())
                with atomic_file(path) as file:
                    np.save(file, values.astype(np.int64, copy=False))
    return MappedArray(path)


def _is_current(path: Path, number: int) -> bool:
    """Tell whether the file exists, is whole and carries this stamp."""
    try:
        mapped = np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    is_table = mapped.ndim == 1 and mapped.dtype == np.int64
    return is_table and mapped.size > 0 and int(mapped[0]) == number
