from __future__ import annotations

import os
import time
from itertools import islice

import psutil
import pytest
import torch

from kpu_mm.datasets import MultiStreamLoader, build_stream


def streams(images, workers, **clip):
    sources = {'type': 'kpu_mm.FolderSource', 'root': str(images)}
    crop = {'type': 'kpu_mm.DecodeRandomResizedCrop', 'size': 16}
    resize = {'type': 'kpu_mm.DecodeResize', 'shortest': 20, 'longest': 40}
    flip = {'type': 'mmcv.RandomFlip', 'prob': 0.5}
    pack = {'type': 'kpu_mm.PackImage'}
    configs = {}
    for name, first, size in [('clip', crop, 4), ('dino', resize, 2)]:
        configs[name] = {
            'batch_size': size,
            'num_workers': workers,
            'dataset': {
                'type': 'kpu_mm.UnlabeledImages',
                'sources': sources,
                'pipeline': [first, flip, pack],
            },
        }
    configs['clip'].update(clip)
    return configs


def take(loader, count):
    batches = list(islice(loader, count))
    loader.close()
    return batches


def assert_equal(a, b):
    assert len(a) == len(b)
    for left, right in zip(a, b, strict=True):
        assert list(left['streams']) == list(right['streams'])
        for name in left['streams']:
            x, y = left['streams'][name], right['streams'][name]
            assert torch.equal(x['images'], y['images'])
            assert (x['mask'] is None) == (y['mask'] is None)
            assert x['mask'] is None or torch.equal(x['mask'], y['mask'])


@pytest.mark.parametrize('workers', [0, 2])
def test_resume_is_exact_for_any_number_of_workers(images, workers):
    whole = take(MultiStreamLoader(streams(images, 0), seed=5), 7)
    assert whole[0]['streams']['clip']['images'].shape == (4, 3, 16, 16)
    assert whole[0]['streams']['dino']['images'].shape[:2] == (2, 3)
    resumed = MultiStreamLoader(streams(images, workers), seed=5)
    resumed.start_at(3)
    assert_equal(take(resumed, 4), whole[3:])
    resumed.start_at(1)
    assert_equal(take(resumed, 2), whole[1:3])


def test_streams_and_seeds_have_orders_of_their_own(images):
    configs = streams(images, 0)
    configs['dino'] = configs['clip']
    batch = take(MultiStreamLoader(configs, seed=5), 1)[0]['streams']
    assert not torch.equal(batch['clip']['images'], batch['dino']['images'])
    other = take(MultiStreamLoader(configs, seed=6), 1)[0]['streams']
    assert not torch.equal(batch['clip']['images'], other['clip']['images'])


def test_training_randomness_is_not_touched(images):
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    take(MultiStreamLoader(streams(images, 0)), 2)
    assert torch.equal(torch.rand(2), expected)


def test_close_stops_the_workers(images):
    before = set(psutil.Process().children())
    loader = MultiStreamLoader(streams(images, 1, persistent_workers=True))
    next(iter(loader))
    assert len(set(psutil.Process().children()) - before) == 2
    loader.close()
    deadline = time.monotonic() + 10
    while set(psutil.Process().children()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert sorted(loader.dataset) == ['clip', 'dino']
    assert loader.batch_size == 6


def die(samples):
    os._exit(3)


@pytest.mark.parametrize('workers', [1])
def test_a_dead_worker_names_its_stream(images, workers):
    configs = streams(images, workers, collate_fn={'type': die})
    loader = MultiStreamLoader(configs)
    with pytest.raises(RuntimeError, match="'clip' failed at iteration 0"):
        next(iter(loader))


def test_bad_settings_name_their_stream(images):
    with pytest.raises(TypeError, match=r"'clip'.*shuffle"):
        MultiStreamLoader(streams(images, 0, shuffle=True))
    with pytest.raises(ValueError, match=r"'clip'.*not registered"):
        MultiStreamLoader(streams(images, 0, collate_fn={'type': 'nothing'}))
    with pytest.raises(ValueError, match='`streams` is empty'):
        MultiStreamLoader({})


def test_workers_are_single_threaded(images):
    loader = build_stream(
        streams(images, 1)['clip']['dataset'],
        batch_size=1,
        num_workers=1,
        collate_fn={'type': threads},
    )
    assert next(iter(loader)) == 1


def threads(samples):
    return torch.get_num_threads()
