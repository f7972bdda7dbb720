import random

import numpy as np
import pytest
import torch

from kpu_mm.datasets import EndlessDataset


class Noisy(torch.utils.data.Dataset):
    """Draws from every generator that transforms draw from."""

    @property
    def metainfo(self):
        return {'classes': ('a', 'b')}

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(1).item()


def test_a_sample_depends_on_seed_and_position_alone():
    endless = EndlessDataset(Noisy(), seed=3)
    expected = [endless[i] for i in range(20)]
    np.random.rand()
    torch.rand(1)
    assert [endless[i] for i in reversed(range(20))] == expected[::-1]
    endless.set_seed(4)
    assert [endless[i] for i in range(20)] != expected
    draws = [sample[1:] for sample in expected]
    assert len(set(draws)) == 20


def test_each_epoch_has_every_sample_in_an_order_of_its_own():
    endless = EndlessDataset(Noisy())
    epochs = [[endless[5 * e + i][0] for i in range(5)] for e in range(8)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_training_randomness_is_not_touched():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    EndlessDataset(Noisy())[7]
    assert torch.equal(torch.rand(2), expected)


def test_meta_information_is_that_of_the_dataset():
    assert EndlessDataset(Noisy()).metainfo == {'classes': ('a', 'b')}
    plain = torch.utils.data.TensorDataset(torch.rand(2))
    assert not hasattr(EndlessDataset(plain), 'metainfo')
    assert len(EndlessDataset(plain)) == 2


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match='TensorDataset has no samples'):
        EndlessDataset(torch.utils.data.TensorDataset(torch.empty(0)))
