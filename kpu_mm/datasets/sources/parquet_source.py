"""Images inside Parquet files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...registry import DATASETS
from ..errors import CorruptImageError
from .file_patterns import find_files

_MAX_GROUPS = 4


@DATASETS.register_module()
class ParquetSource:
    """The images of Parquet files, as Hugging Face data sets have them.

    Parquet reads a row group at a time, so an image in shuffled order costs
    a whole group: fine for small sets and small groups, while large ones
    are better turned into tar shards (``tools/dataset_tools``). Needs
    pyarrow.

    Args:
        files: Paths, wildcards or brace ranges.
        column: The column that holds the encoded images, either as bytes or
            as a struct with the field ``bytes``. Defaults to ``'image'``.

    Raises:
        ValueError: If a file is missing, lacks the column, or all are empty.
        ImportError: If pyarrow is not installed.
    """

    def __init__(
        self, files: str | Sequence[str], column: str = 'image'
    ) -> None:
        parquet = _import_parquet()
        self._files = find_files(files, 'files')
        self._column = column
        groups = []
        for number, path in enumerate(self._files):
            metadata = parquet.read_metadata(path)
            leaves = {
                metadata.schema.column(i).path
                for i in range(metadata.num_columns)
            }
            if not leaves & {column, f'{column}.bytes'}:
                raise ValueError(
                    f"Parquet file '{path}' has no column '{column}' of "
                    f'image bytes; set `column` to one of {sorted(leaves)}.'
                )
            self._leaf = column if column in leaves else f'{column}.bytes'
            groups += [
                (number, group, metadata.row_group(group).num_rows)
                for group in range(metadata.num_row_groups)
            ]
        table = np.array(groups, np.int64).reshape(-1, 3)
        self._groups = table[:, :2]
        self._ends = np.cumsum(table[:, 2])
        if len(self) == 0:
            raise ValueError(f"The Parquet files '{files}' have no rows.")
        self._recent: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def name(self, index: int) -> str:
        """Return ``file/row`` of an image, rows counted in its file."""
        group, row = self._locate(index)
        file = self._groups[group, 0]
        first = int(np.searchsorted(self._groups[:, 0], file))
        before = self._ends[group - 1] if group else 0
        base = self._ends[first - 1] if first else 0
        return f'{self._files[file]}/{int(before - base) + row}'

    def read(self, index: int) -> bytes:
        """Return the encoded image; CorruptImageError if that fails."""
        group, row = self._locate(index)
        try:
            data = self._rows(group)[row].as_py()
        except OSError as error:
            raise CorruptImageError(self.name(index), str(error)) from error
        if data is None:
            raise CorruptImageError(self.name(index), 'no image in this row')
        return data

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {'_recent': OrderedDict()}

    def _locate(self, index: int) -> tuple[int, int]:
        """Return the row group of an image and its row in there."""
        if not 0 <= index < len(self):
            raise IndexError(f'{index} is outside 0..{len(self) - 1}.')
        group = int(np.searchsorted(self._ends, index, side='right'))
        before = self._ends[group - 1] if group else 0
        return group, int(index - before)

    def _rows(self, group: int) -> Any:
        """Return the image bytes of a row group; a few stay in memory."""
        if group not in self._recent:
            number, inner = self._groups[group].tolist()
            file = _import_parquet().ParquetFile(self._files[number])
            with file:
                # One thread: pyarrow's pool does not survive a fork.
                table = file.read_row_group(
                    inner, columns=[self._leaf], use_threads=False
                )
            column = table.column(0).combine_chunks()
            if self._leaf != self._column:
                column = column.field('bytes')
            self._recent[group] = column
            if len(self._recent) > _MAX_GROUPS:
                self._recent.popitem(last=False)
        self._recent.move_to_end(group)
        return self._recent[group]


def _import_parquet() -> Any:
    """Import pyarrow.parquet or say how to get it."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            'ParquetSource needs pyarrow; run `pip install pyarrow`.'
        ) from error
    return parquet
