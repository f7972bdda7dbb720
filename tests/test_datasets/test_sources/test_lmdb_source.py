from __future__ import annotations

import pickle
import sys

import pytest

from kpu_mm.datasets import LmdbSource

lmdb = pytest.importorskip('lmdb')


@pytest.fixture
def database(tmp_path):
    path = tmp_path / 'db'
    with (
        lmdb.open(str(path), map_size=1 << 20) as environment,
        environment.begin(write=True) as transaction,
    ):
        for i in range(5):
            transaction.put(f'key{i}'.encode(), b'%d' % i)
        transaction.put(b'__len__', b'5')
    return str(path)


def test_reads_all_values_but_the_private_ones(database):
    source = LmdbSource(database)
    source = pickle.loads(pickle.dumps(source))
    assert [source.read(i) for i in range(len(source))] == [
        b'%d' % i for i in range(5)
    ]
    assert source.name(2) == f'{database}/key2'


def test_missing_database_and_library_say_so(database, monkeypatch):
    with pytest.raises(ValueError, match='does not exist'):
        LmdbSource(database + 'x')
    monkeypatch.setitem(sys.modules, 'lmdb', None)
    with pytest.raises(ImportError, match='pip install lmdb'):
        LmdbSource(database)
