import pytest
import torch

from kpu_mm.datasets.errors import CorruptImageError
from kpu_mm.datasets.feature_cache import (
    FeatureCache,
    read_index,
    write_record,
)
from kpu_mm.datasets.feature_cache.writer import verify, write_features

from .conftest import teach


def content(folder):
    return {p: p.read_bytes() for p in folder.rglob('*.safetensors')}


def test_every_view_of_every_image_is_stored(plan):
    report = write_features(plan, teach)
    assert report.written == 6 and report.kept == 0 and report.finished
    ((name, reason), again) = report.corrupt  # once a view
    assert name.endswith('n1/03.JPEG') and 'identify' in reason
    assert again == (name, reason)
    cache = FeatureCache(plan.folder)
    assert cache.views == 2
    corrupt = 0
    for view in range(2):
        for image in range(12):
            try:
                pixels = plan.images.view(image, view)['image']
            except CorruptImageError:
                corrupt += 1
                with pytest.raises(CorruptImageError, match='were stored'):
                    cache.read(image, view, torch.zeros(3, 24, 24).byte())
                continue
            got = cache.read(image, view, pixels)
            (expected,) = teach([pixels])
            assert got.cache == plan.record['id']
            assert torch.equal(got.features.summary, expected.summary.half())
            for a, b in zip(got.features.maps, expected.maps, strict=True):
                assert torch.equal(a, b.half())
    assert corrupt == 2


def test_views_differ(plan):
    views = [
        [plan.images.view(i, v)['image'] for i in (0, 1, 2, 4, 5)]
        for v in range(2)
    ]
    assert not all(map(torch.equal, *views))


def test_workers_and_ranks_write_the_same(plan, tmp_path):
    write_features(plan, teach)
    expected = content(plan.folder)
    others = plan._replace(folder=tmp_path / 'others')
    write_record(others.folder, plan.record)
    first = write_features(others, teach, workers=2, rank=0, world_size=2)
    assert first.written == 3 and not first.finished
    with pytest.raises(ValueError, match='is not finished; run tools'):
        FeatureCache(others.folder)
    second = write_features(others, teach, rank=1, world_size=2)
    assert second.written == 3 and second.finished
    got = content(others.folder)
    assert [p.name for p in sorted(got)] == [p.name for p in sorted(expected)]
    assert [got[p] for p in sorted(got)] == [
        expected[p] for p in sorted(expected)
    ]


def test_goes_on_from_what_is_there(plan):
    seen = []

    def stop_after_two_chunks(images):
        if len(seen) >= 6:
            raise KeyboardInterrupt
        seen.append(len(images))
        return teach(images)

    with pytest.raises(KeyboardInterrupt):
        write_features(plan, stop_after_two_chunks)
    there = content(plan.folder)
    assert len(there) == 2 and read_index(plan.folder) is None
    left = next(iter(there)).with_name('chunk-000002.safetensors.7.tmp')
    left.write_bytes(b'half a chunk')
    report = write_features(plan, teach)
    assert (report.written, report.kept) == (4, 2)
    assert not left.exists()
    assert there.items() <= content(plan.folder).items()
    assert write_features(plan, teach).written == 0


@pytest.mark.parametrize('damage', ['delete', 'cut', 'header'])
def test_only_the_damaged_chunk_is_written_again(plan, damage):
    write_features(plan, teach)
    before = content(plan.folder)
    index = read_index(plan.folder)
    victim = sorted(before)[3]
    if damage == 'delete':
        victim.unlink()
    else:
        data = bytearray(before[victim])
        data[20] ^= 1
        victim.write_bytes(data if damage == 'header' else data[:-1])
    times = {p: p.stat().st_mtime_ns for p in before if p != victim}
    report = write_features(plan, teach)
    assert (report.written, report.kept) == (1, 5)
    assert content(plan.folder) == before
    assert read_index(plan.folder) == index
    assert all(p.stat().st_mtime_ns == t for p, t in times.items())


def test_verify_finds_what_starting_does_not(plan):
    write_features(plan, teach)
    assert all(fault is None for _, fault in verify(plan))
    victim = sorted(content(plan.folder))[4]
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    FeatureCache(plan.folder)
    assert [p for p, fault in verify(plan) if fault] == [victim]


def test_views_are_added(plan):
    write_features(plan, teach)
    before = content(plan.folder)
    more = plan._replace(record={**plan.record, 'views': 3})
    assert write_features(more, teach).written == 3
    assert before.items() < content(plan.folder).items()
    assert FeatureCache(plan.folder).views == 3
