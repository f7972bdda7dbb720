from __future__ import annotations

import tarfile

import pytest

from kpu_mm.datasets import FolderSource, TarSource
from tools.dataset_tools.make_shards import ShardPlan, finished_shard, verify_shard, write_shard

from .conftest import encode


@pytest.fixture
def plan(images, tmp_path):
    (images / 'n0' / '04.JPEG').write_bytes(encode(4)[:500])
    (images / 'n1' / 'pict.ure.png').write_bytes(encode(5, format='PNG'))
    (tmp_path / 'out').mkdir()
    return ShardPlan(FolderSource(str(images)), tmp_path / 'out', 5)


def test_shards_hold_the_good_images_unchanged(plan):
    manifests = [write_shard(plan, shard) for shard in range(plan.shards)]
    assert [m['images'] for m in manifests] == [4, 5, 3]
    assert [len(m['skipped']) for m in manifests] == [1, 0, 0]
    name, reason = manifests[0]['skipped'][0]
    assert name.endswith('n0/04.JPEG') and 'truncated' in reason.lower()
    good = [i for i in range(len(plan.source)) if i != 2]
    tar = TarSource(str(plan.folder / 'shard-*.tar'))
    assert [tar.read(i) for i in range(len(tar))] == [plan.source.read(i) for i in good]
    assert tar.name(11).endswith('shard-000002.tar/000000012_pict_ure.png')


def test_same_images_same_bytes(plan):
    first = write_shard(plan, 1)
    for path in list(plan.folder.iterdir()):
        path.unlink()
    assert write_shard(plan, 1) == first
    with tarfile.open(plan.tar(1)) as tar:
        assert {(m.mtime, m.uid, m.uname) for m in tar} == {(0, 0, '')}


def test_finished_shards_are_recognised(plan):
    manifest = write_shard(plan, 0)
    assert finished_shard(plan, 0) == manifest
    assert finished_shard(plan, 1) is None
    with pytest.raises(ValueError, match='other images'):
        finished_shard(plan._replace(images_per_shard=3), 0)
    with plan.tar(0).open('ab') as file:
        file.write(b'x')
    assert finished_shard(plan, 0) is None


def test_verify_finds_every_damage(plan):
    write_shard(plan, 0)
    tar = plan.tar(0)
    assert verify_shard(tar) is None
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    assert verify_shard(tar) == 'its content has changed'
    tar.write_bytes(data[:-1])
    assert 'bytes, not' in verify_shard(tar)
    tar.unlink()
    assert verify_shard(tar) == 'it is missing'
    plan.manifest(0).unlink()
    assert verify_shard(tar) == 'it was not finished'
