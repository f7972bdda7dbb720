"""Images of a dataset that Hugging Face ``datasets`` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kpu_mm.registry import DATASETS

from .encoded_image import CorruptImageError
from .image_sources import read_file


@DATASETS.register_module()
class HFSource:
    """An image column of parquet or arrow files, or of a dataset of the hub.

    ``datasets`` keeps what it has read as memory-mapped arrow files in its
    cache. Its loading scripts, which are code, are not run.

    Args:
        path: A folder that ``Dataset.save_to_disk`` wrote; otherwise the
            first argument of ``datasets.load_dataset``, such as 'parquet'
            with ``data_files``, or the name of a dataset of the hub.
        data_files: Files or wildcards. Defaults to None, those of ``path``.
        split: Which split. Defaults to 'train'.
        column: The column of images, their bytes or their paths. Defaults to
            'image'.

    Raises:
        ImportError: If ``datasets`` is not installed.
        ValueError: If the dataset cannot be read, or has no such column or
            no rows.
    """

    def __init__(
        self,
        path: str,
        data_files: str | Sequence[str] | None = None,
        split: str = 'train',
        column: str = 'image',
    ) -> None:
        datasets = _import_datasets()
        self._where = f'{path}:{split}'
        try:
            # what save_to_disk leaves in a folder
            if (Path(path) / 'state.json').is_file():
                rows = datasets.load_from_disk(path)
            else:
                rows = datasets.load_dataset(path, data_files=data_files, split=split)
        # the library stumbles in many ways over files of another kind
        except Exception as error:
            # The library's own errors say "while generating"; their cause says why.
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            reason = ' '.join(str(cause).split())[:300] or type(cause).__name__
            raise ValueError(
                f"The dataset '{path}' cannot be read ({reason}); correct `path`, `data_files` "
                'or `split`. All files need the same columns of the same types.'
            ) from error
        if column not in rows.column_names:
            raise ValueError(
                f"The dataset '{path}' has no column '{column}', but "
                f'{rows.column_names}; correct `column`.'
            )
        if not len(rows):
            raise ValueError(f"The dataset '{path}' has no rows.")
        # Without this each read would decode all other columns, too.
        rows = rows.select_columns([column])
        if isinstance(rows.features[column], datasets.Image):
            # the encoded bytes: this package decodes images itself
            rows = rows.cast_column(column, datasets.Image(decode=False))
        self._rows, self._column = rows, column

    def __len__(self) -> int:
        return len(self._rows)

    def name(self, index: int) -> str:
        """Return the dataset and the number of the row."""
        return f'{self._where}/{index}'

    def read(self, index: int) -> bytes:
        """Return the encoded image; CorruptImageError if that fails."""
        value = self._rows[index][self._column]
        if isinstance(value, dict):
            # large images may be files beside the table
            value = value.get('bytes') or value.get('path')
        if isinstance(value, str) and value:
            return read_file(value)
        if not isinstance(value, bytes):
            found = '' if value is None else f', but a value of type {type(value).__name__}'
            raise CorruptImageError(self.name(index), f'no image in this row{found}')
        return value


def _import_datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "HFSource needs the package datasets; run `pip install 'datasets>=4,<5'`."
        ) from error
    return datasets
