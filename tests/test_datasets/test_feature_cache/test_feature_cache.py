import pickle

import pytest
import torch

from kpu_mm.datasets import UnlabeledImages, build_stream
from kpu_mm.datasets.feature_cache import FeatureCache
from kpu_mm.datasets.feature_cache.writer import write_features

from .conftest import PIPELINE, source, teach


@pytest.fixture
def cache(plan):
    write_features(plan, teach)
    return plan.folder


def open_dataset(images, cache, pipeline=PIPELINE, **kwargs):
    return UnlabeledImages(
        source(images), pipeline, features=dict(mean=str(cache)), **kwargs
    )


def test_samples_bring_their_features(images, cache):
    dataset = open_dataset(images, cache, seed=5)
    live = UnlabeledImages(source(images), PIPELINE, seed=5, views=2)
    assert dataset.views == 2
    other = pickle.loads(pickle.dumps(dataset))
    skipped = 0
    for position in range(40):
        sample, twin = dataset[position], other[position]
        assert torch.equal(sample['image'], live[position]['image'])
        assert sample['skipped'] == live[position]['skipped']
        skipped += len(sample['skipped'])
        (expected,) = teach([sample['image']])
        for a in (sample, twin):
            got = a['features']['mean'].features
            assert torch.equal(got.summary, expected.summary.half())
            assert torch.equal(got.maps[0], expected.maps[0].half())
    assert skipped >= 3  # the corrupt image, once an epoch


@pytest.mark.parametrize('workers', [0, 2])
def test_batches_bring_padded_features(images, cache, workers):
    loader = build_stream(
        open_dataset(images, cache), batch_size=4, num_workers=workers
    )
    batch = next(iter(loader))
    _, maps, masks = batch['features']['mean'].features
    assert batch['mask'] is not None
    rows, columns = batch['images'].shape[2:]
    assert maps[0].shape == (4, 3, -(-rows // 2), -(-columns // 2))
    assert torch.equal(masks[0][:, 0], batch['mask'][:, ::2, ::2])
    assert torch.equal(maps[0], batch['images'][..., ::2, ::2].half())


def test_an_image_repaired_since_stays_out(images, cache):
    good = (images / 'n0' / '02.JPEG').read_bytes()
    (images / 'n1' / '03.JPEG').write_bytes(good)
    dataset = open_dataset(images, cache)
    skipped = [s for p in range(12) for s in dataset[p]['skipped']]
    assert any('when its features were stored' in r for _, r in skipped)


def test_altered_images_are_refused(images, cache):
    other = (images / 'n0' / '02.JPEG').read_bytes()
    (images / 'n0' / '00.JPEG').write_bytes(other)
    dataset = open_dataset(images, cache)
    with pytest.raises(RuntimeError, match='is not what the teacher saw'):
        [dataset[p] for p in range(12)]


def test_another_pipeline_is_refused(images, cache):
    pipeline = [{**PIPELINE[0], 'shortest': 32}, *PIPELINE[1:]]
    with pytest.raises(
        ValueError, match=r'pipeline\[0\]\.shortest is 24 in .* and 32 here'
    ):
        open_dataset(images, cache, pipeline)
    with pytest.raises(ValueError, match=r'pipeline\[1\] is .*cannot record'):
        open_dataset(images, cache, [PIPELINE[0], print])


def test_other_sources_are_refused(images, cache):
    (images / 'n0' / '00.JPEG').rename(images / 'n0' / '98.JPEG')
    with pytest.raises(ValueError, match=r'sources\[0\]\.names is'):
        open_dataset(images, cache)
    (images / 'n0' / '98.JPEG').unlink()
    with pytest.raises(ValueError, match=r'images is 12 in .* and 11 here'):
        open_dataset(images, cache)


def test_views_must_be_there(images, cache):
    assert open_dataset(images, cache, views=1).views == 1
    with pytest.raises(ValueError, match=r'has 2 views .* views=3; lower'):
        open_dataset(images, cache, views=3)


def damage(path, change):
    data = bytearray(path.read_bytes())
    path.write_bytes(change(data))


def test_missing_and_truncated_chunks_are_refused_at_the_start(cache):
    path = cache / 'view-001' / 'chunk-000002.safetensors'
    damage(path, lambda data: data[:-1])
    with pytest.raises(
        ValueError, match=r'chunk-000002.* cut short .*delete it and run tools'
    ):
        FeatureCache(cache)
    path.unlink()
    with pytest.raises(ValueError, match=r'chunk-000002.* is missing'):
        FeatureCache(cache)


@pytest.mark.parametrize('at', [9, 200, -5])
def test_flipped_bytes_are_refused_when_read(images, cache, at):
    def flip(data):
        data[at] ^= 4
        return data

    path = cache / 'view-000' / 'chunk-000001.safetensors'
    damage(path, flip)
    dataset = open_dataset(images, cache)
    with pytest.raises(
        RuntimeError, match=r'chunk-000001.* altered.*writes this file only'
    ):
        [dataset[p] for p in range(12)]


def test_few_files_are_open(images, cache, monkeypatch):
    monkeypatch.setattr('kpu_mm.datasets.feature_cache.feature_cache._OPEN', 2)
    dataset = open_dataset(images, cache)
    for position in range(24):
        dataset[position]
        assert len(dataset.features['mean']._chunks) <= 2


def test_index_that_is_not_whole(cache):
    (cache / 'index.json').write_text('[[[1')
    with pytest.raises(ValueError, match='is not finished'):
        FeatureCache(cache)
