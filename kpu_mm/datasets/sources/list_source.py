"""Images named in a text file."""

from __future__ import annotations

import os
from pathlib import Path

from ...registry import DATASETS
from .image_source import read_file
from .index_cache import cache_folder
from .line_list import LineList


@DATASETS.register_module()
class ListSource:
    """The image files that a text file names, one path a line.

    Args:
        list_file: The text file.
        root: Folder that relative paths start from. Defaults to the folder
            of ``list_file``.
        cache_dir: Folder for the index. Defaults to
            ``~/.cache/kpu_mm/index``.

    Raises:
        ValueError: If the list is missing or names no file.
    """

    def __init__(
        self,
        list_file: str,
        root: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        path = Path(list_file)
        if not path.is_file():
            raise ValueError(
                f"Image list '{list_file}' does not exist; write one image "
                'path a line into it or correct `list_file`.'
            )
        self._root = str(path.absolute().parent if root is None else root)
        self._lines = LineList(path, cache_folder(cache_dir))
        if len(self) == 0:
            raise ValueError(
                f"Image list '{list_file}' is empty; write one image path a "
                'line into it.'
            )

    def __len__(self) -> int:
        return len(self._lines)

    def name(self, index: int) -> str:
        """Return the path of an image."""
        return os.path.join(self._root, self._lines[index])

    def read(self, index: int) -> bytes:
        """Return the encoded image; CorruptImageError if that fails."""
        return read_file(self.name(index))
