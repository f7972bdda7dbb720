from __future__ import annotations

import pickle
import sys

import pytest

from kpu_mm.datasets import CorruptImageError, HFSource, UnlabeledImages

datasets = pytest.importorskip('datasets')
pa = pytest.importorskip('pyarrow')
parquet = pytest.importorskip('pyarrow.parquet')


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    cache = str(tmp_path / 'cache')
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', cache)


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
    source = HFSource('parquet', files, column=column)
    source = pickle.loads(pickle.dumps(source))
    assert len(source) == 14
    for i in [12, 0, 7, 3, 5, 9, 1, 8]:
        assert source.read(i) == f'{i // 7}-{i % 7}'.encode()
        assert source.name(i) == f'parquet:train/{i}'


def test_saved_dataset_with_an_image_column(tmp_path):
    file = tmp_path / 'a.png'
    file.write_bytes(b'encoded')
    rows = datasets.Dataset.from_dict(
        {'image': [{'bytes': b'inside', 'path': None}, str(file)]},
        features=datasets.Features(image=datasets.Image()),
    )
    rows.save_to_disk(tmp_path / 'saved')
    source = HFSource(str(tmp_path / 'saved'))
    assert [source.read(i) for i in range(2)] == [b'inside', b'encoded']


def test_columns_of_paths_and_of_other_values(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'encoded')
    path = str(tmp_path / 'a.png')
    columns = dict(
        image=[path, None, ''],
        both=[{'bytes': b'', 'path': path}, {'bytes': None, 'path': None}, {'bytes': b'1'}],
        number=[1, 2, 3],
    )
    parquet.write_table(pa.table(columns), tmp_path / 'a.parquet')
    file = str(tmp_path / 'a.parquet')
    assert HFSource('parquet', file).read(0) == b'encoded'
    assert [HFSource('parquet', file, column='both').read(i) for i in (0, 2)] == [b'encoded', b'1']
    faults = [
        ('image', 1, '$'),
        ('image', 2, ', .*str'),
        ('both', 1, '$'),
        ('number', 0, ', .*int'),
    ]
    for column, row, reason in faults:
        with pytest.raises(CorruptImageError, match=f'train/{row}: no image in this row{reason}'):
            HFSource('parquet', file, column=column).read(row)
    sources = dict(type='kpu_mm.HFSource', path='parquet', data_files=file, column='number')
    with pytest.raises(ValueError, match=r"3 of the 3 images of .*'number'.* tried and none"):
        UnlabeledImages(sources, [])


def test_files_of_several_types_say_why(tmp_path):
    for number, value in enumerate((b'1', {'bytes': b'1', 'path': 'x'})):
        parquet.write_table(pa.table({'image': [value]}), tmp_path / f'{number}.parquet')
    with pytest.raises(ValueError, match=r'array of type struct<.*to binary.*the same types'):
        HFSource('parquet', [str(tmp_path / f'{i}.parquet') for i in range(2)])


def test_missing_image_column_files_and_library_say_so(files, monkeypatch):
    with pytest.raises(CorruptImageError, match='no image in this row'):
        HFSource('parquet', files, column='raw').read(13)
    with pytest.raises(ValueError, match=r"no column 'picture'.*raw"):
        HFSource('parquet', files, column='picture')
    with pytest.raises(ValueError, match=r"'parquet' cannot be read"):
        HFSource('parquet', files + '.none')
    monkeypatch.setitem(sys.modules, 'datasets', None)
    with pytest.raises(ImportError, match='pip install'):
        HFSource('parquet', files)
