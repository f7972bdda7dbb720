import pytest
import torch
from mmengine.config import Config

from kpu_mm.datasets.feature_cache import write_record
from kpu_mm.engine.feature_caching import (
    CacheOptions,
    open_images,
    prepare_cache,
)
from kpu_mm.models.teachers import CLIPTeacher
from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

CPU = torch.device('cpu')


@pytest.fixture
def cfg(live_config):
    return Config.fromfile(live_config)


def prepare(cfg, name, folder, **options):
    return prepare_cache(cfg, name, folder, CPU, CacheOptions(**options))


def test_plans_without_writing(cfg, tmp_path):
    cache = prepare(cfg, 'clip', tmp_path / 'c', views=3, chunk_bytes=10000)
    # 32 + 64 * 4 * 4 numbers of two bytes, and what finds them
    assert 0 < cache.image_bytes - 2 * (32 + 64 * 16) < 120
    assert cache.total_bytes == cache.image_bytes * 12 * 3
    assert cache.missing_bytes == cache.total_bytes
    record = cache.plan.record
    assert record['views'] == 3 and record['images_per_chunk'] == 4
    assert record['teacher']['channels'] == [64]
    assert record['versions']['torch'] == torch.__version__.split('+')[0]
    assert len(cache.plan.chunks) == 9
    assert not (tmp_path / 'c').exists()


def test_extracts_each_image_alone(cfg, tmp_path):
    cache = prepare(cfg, 'gdino', tmp_path)
    teacher = MODELS.build(cfg.model.teachers.gdino.teacher)
    sizes = [(3, 96, 130), (3, 96, 101)]
    images = [torch.randint(256, s, dtype=torch.uint8) for s in sizes]
    for image, got in zip(images, cache.extract(images), strict=True):
        for a, b in zip(got.maps, teacher(image[None]).maps, strict=True):
            torch.testing.assert_close(a, b)


def test_an_earlier_run_sets_chunks_and_keeps_views(cfg, tmp_path):
    first = prepare(cfg, 'clip', tmp_path, views=3, chunk_bytes=10000)
    write_record(tmp_path, first.plan.record)
    again = prepare(cfg, 'clip', tmp_path, views=1)
    assert again.plan.record == first.plan.record
    with pytest.raises(ValueError, match='autocast is False in the cache'):
        prepare(cfg, 'clip', tmp_path, autocast=True)


def test_autocast(cfg, tmp_path):
    exact = prepare(cfg, 'clip', tmp_path)
    rounded = prepare(cfg, 'clip', tmp_path, autocast=True)
    images = [torch.randint(256, (3, 64, 64), dtype=torch.uint8)]
    (a,), (b,) = exact.extract(images), rounded.extract(images)
    difference = (a.summary - b.summary).norm() / a.summary.norm()
    assert 1e-4 < difference < 0.05


class NeighbourlyTeacher(CLIPTeacher):
    """Takes half of each map from the image before."""

    def forward(self, images, mask=None):
        summary, maps, masks = super().forward(images, mask)
        mixed = tuple((m + m.roll(1, 0)) / 2 for m in maps)
        return Features(summary, mixed, masks)


def test_teachers_that_mix_images_are_refused(cfg, tmp_path):
    cfg.model.teachers.clip.type = NeighbourlyTeacher
    with pytest.raises(ValueError, match='depends on the other images'):
        prepare(cfg, 'clip', tmp_path)


def test_cached_teachers_are_looked_into(cached_config, tmp_path):
    cfg = Config.fromfile(cached_config)
    assert prepare(cfg, 'gdino', tmp_path).plan.images.features == {}
    cfg.model.teachers.clip.teacher = None
    with pytest.raises(ValueError, match='does not say whose features'):
        prepare(cfg, 'clip', tmp_path)


def test_streams(cfg):
    assert open_images(cfg, 'clip').views == 2
    assert open_images(cfg, 'clip', views=5).views == 5
    del cfg.train_dataloader.clip.dataset['views']
    assert open_images(cfg, 'clip').views == 1
    cfg.model.streams = dict(clip='gdino')
    transforms = open_images(cfg, 'clip').describe()['pipeline']
    assert transforms[0]['shortest'] == 96
    cfg.model.streams = dict(clip='none')
    with pytest.raises(ValueError, match="no stream 'none' for"):
        open_images(cfg, 'clip')
    cfg.model.streams = dict(clip=['clip', 'gdino'])
    with pytest.raises(ValueError, match='cache is of one'):
        open_images(cfg, 'clip')
