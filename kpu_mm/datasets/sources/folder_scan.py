"""Walk a folder tree of millions of images once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from mmengine.logging import print_log

from .index_cache import atomic_file, locked

_PROGRESS_SECONDS = 10.0


def scanned_list(
    root: Path, extensions: tuple[str, ...], stem: Path, refresh: bool
) -> Path:
    """Return the list of the images below a folder, scanning if needed.

    Beside the list stands a record of each folder's modification time. A
    file that comes, goes or is renamed changes its folder's time, so that
    the list is current if all folders still have theirs.

    Args:
        root: The folder.
        extensions: Which files count, as ``('.jpg', ...)``.
        stem: Path of the list and the record, without a suffix.
        refresh: Scan even if the list looks current.

    Returns:
        A text file with one path a line, relative to ``root``, sorted
        folder by folder.
    """
    listing, record = stem.with_suffix('.txt'), stem.with_suffix('.folders')
    with locked(listing):
        if refresh or not _is_current(root, listing, record):
            record.unlink(missing_ok=True)
            _scan(root, extensions, listing, record)
    return listing


def _is_current(root: Path, listing: Path, record: Path) -> bool:
    """Compare each folder's modification time with the recorded one."""
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


def _scan(
    root: Path, extensions: tuple[str, ...], listing: Path, record: Path
) -> None:
    """Write the list and then, as the sign of completion, the record."""
    suffixes = tuple(os.fsencode(e) for e in extensions)
    count, told = 0, time.monotonic()
    with atomic_file(record) as folders, atomic_file(listing) as files:
        for folder, modified, names in _walk(os.fsencode(root), b'', ()):
            folders.write(b'%d %s\n' % (modified, folder))
            for name in names:
                if name.lower().endswith(suffixes):
                    files.write(os.path.join(folder, name) + b'\n')
                    count += 1
            if time.monotonic() - told > _PROGRESS_SECONDS:
                told = time.monotonic()
                print_log(
                    f'Scanning {root}: {count} images so far, now in '
                    f'{os.fsdecode(folder)}',
                    logger='current',
                )


def _walk(
    root: bytes, folder: bytes, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[bytes, int, list[bytes]]]:
    """Yield each folder with its modification time and sorted files."""
    path = os.path.join(root, folder)
    status = os.stat(path)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise ValueError(
            f"Folder '{os.fsdecode(path)}' links back to a folder above it; "
            'remove that link.'
        )
    files: list[bytes] = []
    folders: list[bytes] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if b'\n' in entry.name:
                raise ValueError(
                    f'File {os.fsdecode(entry.path)!r} has a line break in '
                    'its name; rename it.'
                )
            (folders if entry.is_dir() else files).append(entry.name)
    yield folder, status.st_mtime_ns, sorted(files)
    for name in sorted(folders):
        yield from _walk(root, os.path.join(folder, name), (*above, identity))
