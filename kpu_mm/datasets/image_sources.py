"""Where encoded images come from: a list of files, or a folder."""

from __future__ import annotations

import mmap
import os
import stat
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kpu_mm.registry import DATASETS

from .encoded_image import CorruptImageError
from .image_order import stable_hash
from .image_table import (
    ImageTable,
    Progress,
    atomic_file,
    cache_folder,
    file_stamp,
    locked,
    printable,
)

IMAGE_EXTENSIONS = ('jpg', 'jpeg', 'png', 'webp', 'bmp', 'tif', 'tiff')
_CHUNK = 1 << 24  # bytes of a list that are searched at a time
_NEWLINE = ord('\n')
_BLANKS = np.frombuffer(b' \t\r', np.uint8)


# Enough for most headers, with a preview and a colour profile before the size
HEAD_BYTES = 1 << 16


class ImageSource(Protocol):
    """Numbered images, still encoded.

    A source survives pickling and forking: whatever it holds open is opened
    again, or safe to share, in each process. One whose images are large may
    have a method ``head(index)``, which gives the first ``HEAD_BYTES``.
    """

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """Return the encoded image; CorruptImageError if that fails."""
        ...

    def name(self, index: int) -> str:
        """Return what a person needs to find the image, printable."""
        ...


def read_file(path: str | Path, size: int = -1) -> bytes:
    """Read a file, or the start of it.

    Args:
        path: The file.
        size: Read so many bytes at most. Defaults to -1, all.

    Raises:
        CorruptImageError: If it is missing, no regular file, or cannot be
            read.
    """
    try:
        # A pipe or a device would block its reader or never end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise CorruptImageError(str(path), 'no regular file')
        with open(path, 'rb') as file:
            return file.read(size)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CorruptImageError(str(path), reason) from error
    except ValueError as error:  # a NUL byte in the path
        raise CorruptImageError(str(path), str(error)) from error


def normalised_extensions(extensions: tuple[str, ...]) -> tuple[str, ...]:
    """Write file extensions as ``('.jpg', ...)``, in lower case.

    Args:
        extensions: With or without the dot, in any case.
    """
    return tuple(f'.{e.lower().lstrip(".")}' for e in extensions)


@DATASETS.register_module()
class ListSource:
    """The image files that a text file names, one path a line.

    The text is mapped. Empty lines, blanks at the end of a line and a byte
    order mark do not count. Each other line is a path: there are no comments.

    Args:
        list_file: The text file, in the file system's encoding, which is
            UTF-8 on most machines.
        root: Folder that relative paths start from. Defaults to the folder
            of ``list_file``.
        cache_dir: Folder for the table. Defaults to
            ``~/.cache/kpu_mm/index``.

    Raises:
        ValueError: If the list is missing, names no file, or is no text.
    """

    def __init__(
        self, list_file: str, root: str | None = None, cache_dir: str | None = None
    ) -> None:
        path = Path(list_file).absolute()
        if not path.is_file():
            raise ValueError(
                f"Image list '{list_file}' does not exist; write one image "
                'path a line into it or correct `list_file`.'
            )
        self._root = str(path.parent if root is None else root)
        self._list = path
        key = stable_hash(str(path))
        self._text: mmap.mmap | None = None
        self._table = ImageTable(
            cache_folder(cache_dir) / f'list-{key:016x}.npy',
            file_stamp(path),
            lambda: find_lines(path),
        )
        if len(self) == 0:
            raise ValueError(
                f"Image list '{list_file}' is empty; write one image path a line into it."
            )

    def __len__(self) -> int:
        return len(self._table)

    def name(self, index: int) -> str:
        """Return the path of an image, printable."""
        return printable(self._path(index))

    def _path(self, index: int) -> str:
        if self._text is None:
            with self._list.open('rb') as file:
                self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        offset, size = self._table[index]
        line = os.fsdecode(self._text[offset : offset + size])
        return os.path.join(self._root, line)

    def read(self, index: int) -> bytes:
        """Return the encoded image; CorruptImageError if that fails."""
        return read_file(self._path(index))

    def head(self, index: int) -> bytes:
        """Return the first bytes of the image, as :meth:`read` does."""
        return read_file(self._path(index), HEAD_BYTES)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {'_text': None}


def find_lines(path: Path) -> np.ndarray:
    """Find the lines of a text file that are not blank.

    Args:
        path: The file, with line ends of Unix or Windows.

    Returns:
        Offset and size of each line, without blanks at its end, (N, 2) int64.

    Raises:
        ValueError: If the file has zero bytes, which no path has.
    """
    ends = []
    position = 0
    with path.open('rb') as file:
        while chunk := file.read(_CHUNK):
            if b'\0' in chunk:
                raise ValueError(
                    f"Image list '{printable(path)}' has a zero byte at offset "
                    f'{position + chunk.index(0)}: it is UTF-16, damaged, or written by '
                    '`find -print0`; save it as UTF-8 text with one path a line.'
                )
            text = np.frombuffer(chunk, np.uint8)
            ends.append(np.flatnonzero(text == _NEWLINE) + position)
            position += len(text)
    # The last line may have no end.
    # Where lines stop: before each line break, and at the end of the file.
    stops = np.append(np.concatenate([*ends, np.empty(0, np.int64)]), position)
    starts = np.append(0, stops[:-1] + 1).astype(np.int64)
    sizes = (stops - starts).astype(np.int64)
    if position:
        text = np.memmap(path, np.uint8, mode='r')
        # Windows' editors put a mark before the first line.
        if text[: len(BOM_UTF8)].tobytes() == BOM_UTF8:
            starts[0] += len(BOM_UTF8)
            sizes[0] -= len(BOM_UTF8)
        # Windows ends a line with a carriage return before the line break;
        # spreadsheets and editors leave spaces. One is cut in each round.
        rows = np.flatnonzero(sizes > 0)
        while len(rows := rows[np.isin(text[starts[rows] + sizes[rows] - 1], _BLANKS)]):
            sizes[rows] -= 1
            rows = rows[sizes[rows] > 0]
    return np.stack([starts, sizes], 1)[sizes > 0]


@DATASETS.register_module()
class FolderSource(ListSource):
    """All image files in a folder and the folders below it.

    Any layout will do: ImageNet-21K's ``<wnid>/*.JPEG``, OpenImages' flat
    folders. The tree is scanned once; the next start reads the list from the
    cache after comparing the modification time of every folder.

    Args:
        root: The folder.
        extensions: Which files count, in any case. Defaults to those of
            JPEG, PNG, WebP, BMP and TIFF.
        cache_dir: Folder for the list and its table. Defaults to
            ``~/.cache/kpu_mm/index``.
        refresh: Scan again although no folder has changed, for file systems
            that do not keep modification times. Defaults to False.

    Raises:
        ValueError: If the folder is missing or holds no image.
    """

    def __init__(
        self,
        root: str,
        extensions: tuple[str, ...] = IMAGE_EXTENSIONS,
        cache_dir: str | None = None,
        refresh: bool = False,
    ) -> None:
        folder = Path(root).absolute()
        if not folder.is_dir():
            raise ValueError(
                f"Image folder '{root}' does not exist; correct `root` or put the images there."
            )
        suffixes = normalised_extensions(tuple(extensions))
        key = stable_hash(str(folder), *suffixes)
        listing = cache_folder(cache_dir) / f'folder-{key:016x}.txt'
        record = listing.with_suffix('.folders')
        with locked(listing):
            if refresh or not _is_current(folder, listing, record):
                record.unlink(missing_ok=True)
                _scan(folder, suffixes, listing, record)
        if listing.stat().st_size == 0:
            raise ValueError(
                f"Image folder '{root}' holds no file ending in "
                f'{", ".join(suffixes)}; correct `root` or `extensions`.'
            )
        super().__init__(str(listing), root=str(folder), cache_dir=cache_dir)


def _is_current(root: Path, listing: Path, record: Path) -> bool:
    """Compare each folder's modification time with the recorded one.

    A file that comes, goes or is renamed changes its folder's time, so the
    list is current if all folders still have theirs.
    """
    if not (listing.is_file() and record.is_file()):
        return False
    base = os.fsencode(root)
    with record.open('rb') as lines:
        for line in lines:
            recorded, _, folder = line.rstrip(b'\n').partition(b' ')
            try:
                status = os.stat(os.path.join(base, folder))
            except OSError:
                return False
            if status.st_mtime_ns != int(recorded):
                return False
    return True


def _scan(root: Path, extensions: tuple[str, ...], listing: Path, record: Path) -> None:
    """Write the sorted list and then, as a sign of completion, the record."""
    suffixes = tuple(os.fsencode(e) for e in extensions)
    count, progress = 0, Progress()
    with atomic_file(record) as folders, atomic_file(listing) as files:
        for folder, modified, names in _walk(os.fsencode(root), b'', ()):
            folders.write(b'%d %s\n' % (modified, folder))
            for name in names:
                if name.lower().endswith(suffixes):
                    files.write(os.path.join(folder, name) + b'\n')
                    count += 1
            progress.report(f'Scanning {root}: {count} images so far, now in {os.fsdecode(folder)}')


def _walk(
    root: bytes, folder: bytes, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[bytes, int, list[bytes]]]:
    """Yield each folder with its modification time and sorted files."""
    path = os.path.join(root, folder)
    status = os.stat(path)
    identity = (status.st_dev, status.st_ino)
    # Links to other folders are followed, one to a folder above never ends.
    if identity in above:
        raise ValueError(
            f"Folder '{printable(os.fsdecode(path))}' links back to a folder above it; "
            'remove that link.'
        )
    files: list[bytes] = []
    folders: list[bytes] = []
    with os.scandir(path) as entries:
        for entry in entries:
            # The list has one path a line.
            if b'\n' in entry.name:
                raise ValueError(
                    f"File '{printable(os.fsdecode(entry.path))}' has a line break in its name; "
                    'rename it.'
                )
            (folders if entry.is_dir() else files).append(entry.name)
    yield folder, status.st_mtime_ns, sorted(files)
    for name in sorted(folders):
        yield from _walk(root, os.path.join(folder, name), (*above, identity))
