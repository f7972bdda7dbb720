"""A text file as a list of its lines, without a Python list."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..hashing import stable_hash
from .index_cache import cached_array, file_stamp

_CHUNK = 1 << 24
_NEWLINE, _RETURN = 10, 13


class LineList:
    """The lines of a text file by number; empty lines do not count.

    The text is mapped and only the start of each line is kept, in a mapped
    file too: 15 million paths cost no private memory in any process.

    Args:
        path: The text file, in the file system's encoding.
        cache: Folder for the line starts.
    """

    def __init__(self, path: Path, cache: Path) -> None:
        self.path = path.absolute()
        name = f'lines-{stable_hash(str(self.path)):016x}.npy'
        self._starts = cached_array(
            cache / name, file_stamp(self.path), lambda: line_starts(self.path)
        )
        self._text: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self._starts.values)

    def __getitem__(self, index: int) -> str:
        if self._text is None:
            with self.path.open('rb') as file:
                self._text = mmap.mmap(
                    file.fileno(), 0, access=mmap.ACCESS_READ
                )
        start = int(self._starts.values[index])
        end = self._text.find(b'\n', start)
        line = self._text[start : end if end >= 0 else len(self._text)]
        return os.fsdecode(line.rstrip(b'\r'))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {'_text': None}


def line_starts(path: Path) -> np.ndarray:
    """Find where the lines that are not empty start, (N,) int64."""
    starts = []
    before, position = _NEWLINE, 0
    with path.open('rb') as file:
        while chunk := file.read(_CHUNK):
            text = np.frombuffer(chunk, np.uint8)
            previous = np.empty_like(text)
            previous[0], previous[1:] = before, text[:-1]
            begins = (previous == _NEWLINE) & (text != _NEWLINE)
            found = np.flatnonzero(begins) + position
            starts.append(found)
            before, position = int(text[-1]), position + len(text)
    if not starts:
        return np.empty(0, np.int64)
    joined = np.concatenate(starts)
    return joined[~_is_blank_return(path, joined)]


def _is_blank_return(path: Path, starts: np.ndarray) -> np.ndarray:
    """Mark the lines that hold nothing but a carriage return."""
    text = np.memmap(path, np.uint8, mode='r')
    blank = text[starts] == _RETURN
    followed = np.minimum(starts[blank] + 1, len(text) - 1)
    blank[blank] = (text[followed] == _NEWLINE) | (
        starts[blank] + 1 == len(text)
    )
    return blank
