from itertools import islice

import pytest
import torch
from mmengine.dataset import InfiniteSampler
from torch.utils.data import TensorDataset

from kpu_mm.datasets import build_stream

SHUFFLING = {'type': 'DefaultSampler', 'shuffle': True}


def numbers(count=10):
    return TensorDataset(torch.arange(count))


def test_labelled_samples_come_as_mmengine_collates_them():
    loader = build_stream(numbers(), batch_size=4, sampler=SHUFFLING)
    (batch,) = next(iter(loader))
    assert not torch.is_tensor(batch) and len(batch) == 4
    loader = build_stream(numbers(), batch_size=4, collate_fn={'type': 'default_collate'})
    (batch,) = next(iter(loader))
    assert batch.shape == (4,)


def test_an_epoch_ends_inside_a_batch():
    loader = build_stream(numbers(), batch_size=4, drop_last=True)
    seen = [int(n) for (batch,) in islice(loader, 5) for n in batch]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    loader.start_at(3)
    assert [int(n) for n in next(iter(loader))[0]] == seen[12:16]


@pytest.mark.parametrize(
    'sampler',
    [
        {'type': 'DefaultSampler'},
        {'type': 'mmengine.InfiniteSampler', 'shuffle': True},
        {'type': InfiniteSampler, 'shuffle': True},
        {'type': 'DefaultSampler', '_scope_': 'mmdet'},
    ],
)
def test_samplers_that_only_shuffle_are_accepted(sampler):
    build_stream(numbers(), batch_size=4, sampler=sampler)


@pytest.mark.parametrize(
    'order',
    [
        {'sampler': {'type': 'DefaultSampler', 'shuffle': False}},
        {'sampler': {'type': 'InfiniteSampler', 'seed': 3}},
        {'sampler': {'type': 'RepeatAugSampler', 'shuffle': True}},
        {'batch_sampler': {'type': 'AspectRatioBatchSampler'}},
    ],
)
def test_any_other_order_is_refused(order):
    with pytest.raises(ValueError, match=f'{next(iter(order))}=.*set'):
        build_stream(numbers(), batch_size=4, **order)
