from __future__ import annotations

from collections import Counter

import pytest

from kpu_mm.datasets import SourceMix


def test_shares_follow_weights_evenly():
    mix = SourceMix([50, 400, 7], [1, 2, 3])
    sources = [mix.locate(p, 0)[0] for p in range(3000)]
    # Largest remainder of 1000: 166.67 and 333.33 and 500.
    assert Counter(sources[:1000]) == {0: 167, 1: 333, 2: 500}
    assert sources[:1000] == sources[1000:2000]
    for start in range(0, 1000, 12):
        counts = Counter(sources[start : start + 12])
        assert abs(counts[2] - 6) <= 1 and abs(counts[0] - 2) <= 1


@pytest.mark.parametrize('weights', [None, [3, 1]])
def test_every_image_once_per_epoch_of_its_source(weights):
    lengths = [30, 20]
    mix = SourceMix(lengths, weights)
    seen = [mix.locate(p, 5) for p in range(4000)]
    pools = [[0, 1]] if weights is None else [[0], [1]]
    for pool in pools:
        size = sum(lengths[s] for s in pool)
        own = [item for item in seen if item[0] in pool]
        epochs = [own[i : i + size] for i in range(0, len(own) - size + 1, size)]
        everything = {(s, i) for s in pool for i in range(lengths[s])}
        assert len(epochs) >= 30
        assert all(set(epoch) == everything for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_seed_changes_the_order():
    mix = SourceMix([100])
    orders = [[mix.locate(p, s) for p in range(100)] for s in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize('weights', [[1], [1, 0], [1, -1], [float('nan'), 1], [1, 5000]])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match=r'weight|Weights'):
        SourceMix([5, 5], weights)


def test_split():
    mix = SourceMix([4, 1, 3])
    assert [mix.split(image) for image in range(8)] == [
        *((0, i) for i in range(4)),
        (1, 0),
        *((2, i) for i in range(3)),
    ]
