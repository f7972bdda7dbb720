from __future__ import annotations

import pytest
import torch

from kpu_mm.datasets import MixedResolution, MultiStreamLoader, PositionSampler


def config(images, sizes=(16, 24, 40)):
    return dict(
        type='kpu_mm.MixedResolution',
        sizes=list(sizes),
        dataset=dict(
            type='kpu_mm.UnlabeledImages',
            sources=dict(type='kpu_mm.FolderSource', root=str(images)),
            pipeline=[
                dict(type='kpu_mm.DecodeRandomResizedCrop', size=1),
                dict(type='kpu_mm.PackImage'),
            ],
        ),
    )


def batches(loader, count):
    return [
        batch['streams']['low']['images'] for batch, _ in zip(loader, range(count), strict=False)
    ]


def test_one_size_in_a_batch_and_all_of_them_in_the_long_run(images):
    loader = MultiStreamLoader(dict(low=dict(dataset=config(images), batch_size=3)), seed=1)
    sizes = [tuple(b.shape) for b in batches(loader, 40)]
    assert set(sizes) == {(3, 3, s, s) for s in (16, 24, 40)}
    dataset = loader.dataset['low']
    assert len(dataset) == 12
    counts = [0, 0, 0]
    for i in range(3000):
        counts[(16, 24, 40).index(dataset.size_at(3 * i))] += 1
    assert all(abs(count - 1000) < 100 for count in counts)


def test_resumes_exactly_whatever_the_workers(images):
    def build(workers):
        loader = dict(dataset=config(images), batch_size=2, num_workers=workers)
        return MultiStreamLoader(dict(low=loader), seed=3)

    expected = batches(build(0), 9)
    resumed = build(1)
    resumed.start_at(5)
    for a, b in zip(batches(resumed, 4), expected[5:], strict=True):
        assert torch.equal(a, b)
    other = build(0)
    other.set_seed(4)
    shapes = [b.shape for b in batches(other, 9)]
    assert shapes != [b.shape for b in expected]


def test_processes_agree(images):
    dataset = config(images)['dataset']
    one, two = (MixedResolution(dataset, (16, 24, 40)) for _ in range(2))
    PositionSampler(one, 6, rank=0, world_size=1)
    PositionSampler(two, 3, rank=1, world_size=2)
    assert one.batch_size == two.batch_size == 6
    assert len({one.size_at(i) for i in range(60)}) == 3
    for i in range(60):
        assert one.size_at(i) == two.size_at(i) == one.size_at(i // 6 * 6)


def test_images_are_those_of_the_size(images):
    mixed = MixedResolution(config(images)['dataset'], sizes=(16, 24, 40))
    for position in range(6):
        size = mixed.size_at(position)
        alone = MixedResolution(config(images)['dataset'], sizes=[size])
        got = mixed[position]['image']
        assert torch.equal(got, alone[position]['image'])
        assert got.shape == (3, size, size)


def test_refusals(images):
    with pytest.raises(ValueError, match='one size at least'):
        MixedResolution(config(images)['dataset'], sizes=[])
    dataset = config(images)['dataset']
    dataset['pipeline'][0] = dict(type='kpu_mm.DecodeResize')
    with pytest.raises(ValueError, match='a transform that has it'):
        MixedResolution(dataset, sizes=[8])
