"""Images inside webdataset tar shards, in any order."""

from __future__ import annotations

import glob
import logging
import os
import re
import tarfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from kpu_mm.registry import DATASETS

from .encoded_image import CorruptImageError
from .image_order import stable_hash
from .image_sources import HEAD_BYTES, IMAGE_EXTENSIONS, normalised_extensions
from .image_table import ImageTable, Progress, cache_folder, file_stamp, printable

_BRACES = re.compile(r'\{([^{}]*)\}')
_RANGE = re.compile(r'(\d+)\.\.(\d+)')
_BLOCK = tarfile.BLOCKSIZE
_MAX_OPEN = 256
# how compressed files start, and the programs for them
_COMPRESSED = {b'\x1f\x8b': 'gzip', b'BZh': 'bzip2', b'\xfd7zXZ': 'xz', b'\x28\xb5\x2f\xfd': 'zstd'}


@DATASETS.register_module()
class TarSource:
    """The images of tar shards in webdataset's format, with random access.

    https://github.com/webdataset/webdataset. The headers of all shards are
    read once; the table of images is kept in the cache, and made anew when a
    shard has another size or time. Joined shards (``cat a.tar b.tar``) count
    whole, and a hard link is the image that it links to. Symbolic links and
    sparse files, whose bytes are not in one piece, are left out with a
    warning.

    Args:
        shards: Paths, wildcards or brace ranges such as
            ``'data/train-{000000..001499}.tar'``; uncompressed files.
        extensions: Which members are images, in any case. Defaults to those
            of JPEG, PNG, WebP, BMP and TIFF.
        cache_dir: Folder for the table. Defaults to
            ``~/.cache/kpu_mm/index``.

    Raises:
        ValueError: If a shard is missing or broken, or there is no image at
            all.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        extensions: tuple[str, ...] = IMAGE_EXTENSIONS,
        cache_dir: str | None = None,
    ) -> None:
        self._shards = find_shards(shards)
        suffixes = normalised_extensions(tuple(extensions))
        key = stable_hash(*map(str, self._shards), *suffixes)
        self._table = ImageTable(
            cache_folder(cache_dir) / f'tar-{key:016x}.npy',
            repr([file_stamp(shard) for shard in self._shards]),
            lambda: _read_headers(self._shards, suffixes),
        )
        if len(self) == 0:
            raise ValueError(
                f"The shards '{shards}' hold no member ending in "
                f'{", ".join(suffixes)}; correct `shards` or `extensions`.'
            )
        # File descriptors by shard, the last used at the end. `os.pread`
        # leaves a file's position alone, so forked processes may share them.
        self._open: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._table)

    def name(self, index: int) -> str:
        """Return ``shard/member`` of an image."""
        number, offset, _ = self._table[index]
        shard = self._shards[number]
        # Errors alone ask for names, so members are searched, not stored.
        try:
            for member in read_members(shard):
                if member.offset_data == offset:
                    return printable(f'{shard}/{member.name}')
        # The shard was damaged or taken away after it was indexed.
        except (ValueError, OSError):
            pass
        return printable(f'{shard}, byte {offset}')

    def read(self, index: int) -> bytes:
        """Return the encoded image; CorruptImageError if that fails."""
        return self._read(index, self._table[index][2])

    def head(self, index: int) -> bytes:
        """Return the first bytes of the image, as :meth:`read` does."""
        return self._read(index, min(HEAD_BYTES, self._table[index][2]))

    def _read(self, index: int, size: int) -> bytes:
        shard, offset, _ = self._table[index]
        try:
            data = os.pread(self._descriptor(shard), size, offset)
        except OSError as error:
            reason = error.strerror or str(error)
            raise CorruptImageError(self.name(index), reason) from error
        if len(data) != size:
            raise CorruptImageError(self.name(index), 'the shard is cut short')
        return data

    def _descriptor(self, shard: int) -> int:
        if shard not in self._open:
            path = self._shards[shard]
            self._open[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if len(self._open) > _MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(shard)
        return self._open[shard]

    def __del__(self) -> None:
        for descriptor in self.__dict__.get('_open', {}).values():
            os.close(descriptor)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {'_open': OrderedDict()}


def read_members(shard: Path) -> Iterator[tarfile.TarInfo]:
    """Read the headers of a tar shard.

    Args:
        shard: An uncompressed tar file, or several one after another.

    Raises:
        ValueError: If it is not one, or is cut short.
    """
    size, start = shard.stat().st_size, 0
    with shard.open('rb') as file:
        head = file.read(_BLOCK)
        while start < size or not head:
            file.seek(start)
            try:
                # `r:` refuses compression, which has no random access.
                with tarfile.open(fileobj=file, mode='r:') as tar:
                    yield from tar
                    # where it expected the next header
                    start = tar.offset
            except (tarfile.TarError, OSError) as error:
                program = next((p for m, p in _COMPRESSED.items() if head.startswith(m)), None)
                remedy = f'decompress it by {program} -d' if program else 'copy or make it again'
                raise ValueError(
                    f"Shard '{printable(shard)}' is not a complete uncompressed tar file "
                    f'({error}); {remedy}.'
                ) from error
            start = _skip_end(file, shard, start)


def _skip_end(file: Any, shard: Path, start: int) -> int:
    """Where the next archive starts, after the empty blocks of this one.

    An archive ends with empty blocks. Without any, it has been cut.
    """
    file.seek(start)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise ValueError(
            f"Shard '{printable(shard)}' is cut short at {shard.stat().st_size} bytes; "
            'copy or make it again.'
        )
    while block := file.read(_BLOCK):
        if block.strip(b'\0'):
            return int(file.tell()) - len(block)
    return int(file.tell())


def _read_headers(shards: Sequence[Path], suffixes: tuple[str, ...]) -> np.ndarray:
    """Shard, offset and size of each image, (N, 3) int64."""
    rows, progress = [np.empty((0, 3), np.int64)], Progress()
    left_out = []
    for number, shard in enumerate(shards):
        found, plain = [], {}
        for member in read_members(shard):
            if member.isreg() and not member.issparse():
                plain[member.name] = member
            if member.isdir() or not member.name.lower().endswith(suffixes):
                continue
            # A hard link follows the member that it links to.
            target = plain.get(member.linkname if member.islnk() else member.name)
            if target is None or member.issym() or member.issparse():
                left_out.append(printable(f'{shard}/{member.name}'))
            else:
                found.append((number, target.offset_data, target.size))
        rows.append(np.array(found, np.int64).reshape(-1, 3))
        progress.report(f'Read {number + 1} of {len(shards)} shards')
    if left_out:
        print_log(
            f'{len(left_out)} members of the shards are links or sparse files and are left out, '
            f"the first is '{left_out[0]}'; make shards with `tar --dereference`, without `-S`.",
            logger='current',
            level=logging.WARNING,
        )
    return np.concatenate(rows)


def find_shards(patterns: str | Sequence[str]) -> list[Path]:
    """List files by paths, wildcards and brace ranges.

    Args:
        patterns: One or several.

    Returns:
        Absolute paths in the order of the patterns, sorted within a
        wildcard.

    Raises:
        ValueError: If a pattern matches nothing.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    found: list[Path] = []
    for pattern in patterns:
        for path in expand_braces(pattern):
            # A pipe or a device would block its reader or never end.
            matches = [match for match in (path, *glob.glob(path)) if Path(match).is_file()]
            if not matches:
                raise ValueError(
                    f"No file matches '{path}'; correct `shards` or put the files there."
                )
            found.extend(Path(match).absolute() for match in sorted(set(matches)))
    if not found:
        raise ValueError('`shards` is empty; name at least one file.')
    return found


def expand_braces(pattern: str) -> Iterator[str]:
    """Expand ``{000..012}`` and ``{train,val}`` as a shell does.

    Args:
        pattern: Text with any number of brace groups, not nested.

    Yields:
        The texts, the leftmost group changing slowest.
    """
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    bounds = _RANGE.fullmatch(match[1])
    if bounds is None:
        choices = match[1].split(',')
    else:
        first, last = bounds.groups()
        choices = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    for choice in choices:
        yield from expand_braces(pattern[: match.start()] + choice + pattern[match.end() :])
