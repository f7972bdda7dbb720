"""ImageTable: where millions of images lie, in a file that processes share."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
from mmengine.logging import print_log

from .image_order import stable_hash

_PROGRESS_SECONDS = 10.0
# Lustre without its option flock, NFS without lockd
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
# Control characters, ends of lines, and the surrogates by which Python keeps
# bytes of a file name that are not UTF-8.
_UNPRINTABLE = re.compile('[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')


def printable(name: object) -> str:
    r"""Write a name so that every log, terminal and JSON file takes it.

    Bytes that are not UTF-8 and line breaks would make a logger fail, or a
    line look like two; they become escapes such as ``\xff`` and ``\n``.

    Args:
        name: A path, or what else names a file.
    """
    return _UNPRINTABLE.sub(_escape, str(name))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    # U+DC80 to U+DCFF stand for the bytes 80 to FF (surrogateescape).
    if 0xDC80 <= code <= 0xDCFF:
        return f'\\x{code - 0xDC00:02x}'
    return match[0].encode('unicode_escape').decode()


class ImageTable:
    """Rows of int64 numbers in a file, mapped by every process.

    A list has a row for each line, (offset, size); tar shards have a row for
    each image, (shard, offset, size). The file is written once and whole,
    and written anew when its stamp or its checksum is another. It is mapped at first use in
    each process; pickling carries its path only, so that workers never copy
    the numbers: 15 million rows cost no private memory.

    Args:
        path: The ``.npy`` file: one row that starts with the stamp and the
            checksum, then the table.
        stamp: Describes what the table is made from.
        build: Computes the table, (N, K) int64, with K of 2 at least.
    """

    def __init__(self, path: Path, stamp: str, build: Callable[[], np.ndarray]) -> None:
        self.path = path
        self._rows: np.ndarray | None = None
        number = stable_hash(stamp)
        if _is_current(path, number):
            return
        with locked(path):
            # Another process may have built it while this one waited.
            if not _is_current(path, number):
                rows = build()
                # The stamp is a row of its own: one file, mapped as a whole.
                head = np.zeros((1, rows.shape[1]), np.int64)
                head[0, :2] = number, zlib.crc32(rows.data)
                with atomic_file(path) as file:
                    np.save(file, np.concatenate([head, rows]))

    @property
    def rows(self) -> np.ndarray:
        """The table, (N, K) int64."""
        if self._rows is None:
            mapped = np.load(self.path, mmap_mode='r', allow_pickle=False)
            # Element access of a plain view is several times faster.
            self._rows = mapped.view(np.ndarray)[1:]
        return self._rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[int]:
        if not 0 <= index < len(self):
            raise IndexError(f'{index} is outside 0..{len(self) - 1}.')
        row: list[int] = self.rows[index].tolist()
        return row

    def __getstate__(self) -> dict[str, Any]:
        return {'path': self.path, '_rows': None}


def _is_current(path: Path, number: int) -> bool:
    """Tell whether the file exists, is undamaged and carries this stamp."""
    try:
        mapped = np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    is_table = mapped.ndim == 2 and mapped.dtype == np.int64 and mapped.size > 1
    # A damaged number would silently be another image. This reads about 1 GB/s.
    return is_table and mapped[0, :2].tolist() == [number, zlib.crc32(mapped[1:].data)]


def cache_folder(cache_dir: str | None) -> Path:
    """Make and return the folder for tables.

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
    """Tell one version of a file from another by its size and time.

    Args:
        path: The file.
    """
    status = Path(path).stat()
    return f'{path}|{status.st_size}|{status.st_mtime_ns}'


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name only when complete.

    Args:
        path: The file.
    """
    # Processes of two machines may have equal numbers.
    temporary = path.with_name(f'{path.name}.{uuid4().hex}.tmp')
    try:
        with temporary.open('wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # A rename is atomic within a file system.
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process of a machine build ``path`` while others wait.

    Args:
        path: What is built; it must appear whole, as :func:`atomic_file` lets
            it, since a file system may have no locks.
    """
    with path.with_name(f'{path.name}.lock').open('wb') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            warn_without_locks(error, path, 'each process may list the images for itself')
        yield


def warn_without_locks(error: OSError, path: Path, result: str) -> None:
    """Warn if a file system has no locks, and raise any other error.

    Args:
        error: Why the lock was not given.
        path: What was to be locked.
        result: What follows from that.

    Raises:
        OSError: If there are locks.
    """
    if error.errno not in _NO_LOCKS:
        raise error
    print_log(
        f'{path} cannot be locked, as the file system has no locks ({error.strerror}): {result}.',
        'current',
        logging.WARNING,
    )


class Progress:
    """Says every ten seconds how far a long scan has come."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def report(self, text: str) -> None:
        """Log a line, unless the last one is too recent.

        Args:
            text: The line.
        """
        if time.monotonic() - self._told > _PROGRESS_SECONDS:
            self._told = time.monotonic()
            print_log(printable(text), logger='current')
