import torch

from kpu_mm.datasets.feature_cache import StoredFeatures, stack_stored
from kpu_mm.structures import Features


def stored(width, summary=True):
    return StoredFeatures(
        'id',
        Features(
            torch.randn(1, 3).half() if summary else None,
            (torch.randn(1, 2, 2, width).half(),),
        ),
    )


def test_stack_and_first():
    samples = [stored(2), stored(4), stored(3)]
    cache, features = batch = stack_stored(samples, padded=True)
    assert cache == 'id' and features.maps[0].shape == (3, 2, 2, 4)
    assert features.masks[0].sum((1, 2, 3)).tolist() == [4, 8, 6]
    _, first = batch.first(2)
    assert torch.equal(first.summary, features.summary[:2])
    assert torch.equal(first.maps[0], features.maps[0][:2])
    assert torch.equal(first.masks[0], features.masks[0][:2])


def test_without_summary_and_padding():
    batch = stack_stored([stored(2, False), stored(2, False)], padded=False)
    assert batch.first(1).features.summary is None
    assert batch.first(1).features.masks is None
