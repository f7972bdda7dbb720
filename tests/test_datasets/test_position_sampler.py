from __future__ import annotations

from itertools import islice

import pytest

from kpu_mm.datasets import PositionSampler


class Recorder:
    seed = None

    def set_seed(self, seed):
        self.seed = seed


def test_two_processes_see_what_one_sees():
    one = PositionSampler(Recorder(), 6, rank=0, world_size=1)
    two = [PositionSampler(Recorder(), 3, rank=r, world_size=2) for r in (0, 1)]
    joined = []
    iterators = [iter(sampler) for sampler in two]
    for _ in range(5):
        for iterator in iterators:
            joined += islice(iterator, 3)
    assert joined == list(islice(one, 30)) == list(range(30))


def test_start_resumes_in_the_middle():
    sampler = PositionSampler(Recorder(), 4, rank=1, world_size=3)
    everything = list(islice(sampler, 40))
    sampler.start(7)
    assert list(islice(sampler, 12)) == everything[28:]
    with pytest.raises(ValueError, match='>= 0'):
        sampler.start(-1)


def test_seed_goes_to_the_dataset():
    dataset = Recorder()
    PositionSampler(dataset, 1, seed=4)
    assert dataset.seed == 4
    PositionSampler(dataset, 1)
    assert dataset.seed == 4
    with pytest.raises(ValueError, match='batch_size'):
        PositionSampler(dataset, 0)
