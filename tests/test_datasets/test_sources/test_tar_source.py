from __future__ import annotations

import multiprocessing
import os
import pickle

import pytest

from kpu_mm.datasets import CorruptImageError, FolderSource, TarSource
from kpu_mm.datasets.sources.tar_index import build_tar_index

from ..conftest import write_tar


@pytest.fixture
def shards(images, tmp_path):
    folder = FolderSource(str(images))
    for shard in range(3):
        members = {}
        for i in range(shard * 4, shard * 4 + 4):
            # A name beyond the 100 bytes of the plain tar header.
            members[f'{"long" * 30}_{i:03d}.JPG'] = folder.read(i)
            members[f'{"long" * 30}_{i:03d}.cls'] = b'7'
        write_tar(tmp_path / f's-{shard:03d}.tar', members)
    return str(tmp_path / 's-{000..002}.tar')


def test_equals_the_folder_it_was_made_of(shards, images):
    folder, tar = FolderSource(str(images)), TarSource(shards)
    assert len(tar) == len(folder) == 12
    for i in reversed(range(12)):
        assert tar.read(i) == folder.read(i)
        assert tar.name(i).endswith(f'long_{i:03d}.JPG')
        assert f's-{i // 4:03d}.tar/' in tar.name(i)
    wildcard = TarSource(shards.replace('{000..002}', '*'))
    assert [wildcard.read(i) for i in range(12)] == [
        folder.read(i) for i in range(12)
    ]


def read_all(source, results):
    results.put([source.read(i) for i in range(len(source))])


def test_pickled_and_forked_copies_read(shards):
    source = TarSource(shards)
    expected = [source.read(i) for i in range(12)]
    assert len(pickle.dumps(source)) < 3000
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.read(i) for i in range(12)] == expected
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    workers = [
        context.Process(target=read_all, args=(source, results))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=30) for _ in workers] == [expected] * 2
    for worker in workers:
        worker.join()


def test_stale_index_is_refused(shards, tmp_path, images):
    TarSource(shards)
    shard = tmp_path / 's-001.tar'
    index = tmp_path / 's-001.tar.idx.npz'
    modified = index.stat().st_mtime_ns + 10**9
    os.utime(shard, ns=(modified, modified))
    with pytest.raises(ValueError, match=r'stale.*older.*delete'):
        TarSource(shards)
    with shard.open('ab') as file:
        file.write(bytes(10240))
    os.utime(index, ns=(modified + 10**10,) * 2)
    with pytest.raises(ValueError, match=r'stale.*bytes'):
        TarSource(shards)
    index.unlink()
    assert len(TarSource(shards)) == 12
    index.write_bytes(b'junk')
    os.utime(shard)
    with pytest.raises(ValueError, match='cannot be read'):
        TarSource(shards)


def test_indices_may_lie_elsewhere(shards, tmp_path):
    TarSource(shards, index_dir=str(tmp_path / 'idx'))
    assert len(list((tmp_path / 'idx').glob('*.idx.npz'))) == 3
    assert not list(tmp_path.glob('*.idx.npz'))


def test_shard_cut_while_training_is_a_corrupt_image(shards, tmp_path):
    source = TarSource(shards)
    os.truncate(tmp_path / 's-002.tar', 1000)
    assert source.read(0)
    with pytest.raises(CorruptImageError, match='cut short'):
        source.read(11)


def test_broken_and_empty_shards_say_so(shards, tmp_path):
    size = (tmp_path / 's-000.tar').stat().st_size
    os.truncate(tmp_path / 's-000.tar', size // 4)
    with pytest.raises(ValueError, match=r's-000\.tar.*(complete|short)'):
        build_tar_index(tmp_path / 's-000.tar')
    with pytest.raises(ValueError, match=r'No file matches.*s-009'):
        TarSource(str(tmp_path / 's-009.tar'))
    with pytest.raises(ValueError, match=r'hold no member.*\.gif'):
        TarSource(str(tmp_path / 's-001.tar'), extensions=('gif',))
