from __future__ import annotations

import pickle
import sys

import pytest

from kpu_mm.datasets import CorruptImageError, ParquetSource

pa = pytest.importorskip('pyarrow')
parquet = pytest.importorskip('pyarrow.parquet')


@pytest.fixture
def files(tmp_path):
    for file in range(2):
        rows = [f'{file}-{i}'.encode() for i in range(7)]
        table = pa.table(
            {
                'image': [{'bytes': row, 'path': 'p'} for row in rows],
                'raw': [*rows[:-1], None],
                'label': list(range(7)),
            }
        )
        parquet.write_table(table, tmp_path / f'{file}.parquet', 3)
    return str(tmp_path / '*.parquet')


@pytest.mark.parametrize('column', ['image', 'raw'])
def test_reads_rows_in_any_order(files, column):
    source = ParquetSource(files, column)
    source = pickle.loads(pickle.dumps(source))
    assert len(source) == 14
    for i in [12, 0, 7, 3, 5, 9, 1, 8]:
        assert source.read(i) == f'{i // 7}-{i % 7}'.encode()
        assert source.name(i).endswith(f'{i // 7}.parquet/{i % 7}')
    assert len(source._recent) <= 4


def test_missing_image_column_and_library_say_so(files, monkeypatch):
    with pytest.raises(CorruptImageError, match='no image in this row'):
        ParquetSource(files, 'raw').read(13)
    with pytest.raises(ValueError, match=r"no column 'picture'.*raw"):
        ParquetSource(files, 'picture')
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    with pytest.raises(ImportError, match='pip install pyarrow'):
        ParquetSource(files)
