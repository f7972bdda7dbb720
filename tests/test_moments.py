from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from kpu_mm.structures import Features, Moments, valid_vectors


def anisotropic(count=500, channels=7):
    """Vectors with covariance, and with means far from zero."""
    mixing = torch.randn(channels, channels) * torch.logspace(-2, 2, channels)
    return torch.randn(count, channels) @ mixing + 1000


def assert_are_those_of(moments, vectors):
    vectors = vectors.double().numpy()
    assert moments.count == len(vectors)
    np.testing.assert_allclose(moments.mean, vectors.mean(0), rtol=1e-12)
    covariance = np.cov(vectors.T, bias=True)
    np.testing.assert_allclose(moments.covariance, covariance, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(moments.variance, vectors.var(0), rtol=1e-9, atol=1e-12)


def test_parts_are_as_one():
    torch.manual_seed(0)
    vectors = anisotropic()
    parts = [Moments.of(part) for part in vectors.split([1, 300, 0, 199])]
    assert_are_those_of(reduce(add, parts), vectors)
    assert_are_those_of(reduce(add, reversed(parts)), vectors)


def test_worked_by_hand():
    first = Moments.of(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    both = first + Moments.of(torch.tensor([[5.0, 6.0]]))
    assert both.count == 3
    assert both.mean.tolist() == [3, 2]
    assert both.scatter.tolist() == [[8, 12], [12, 24]]


def test_nothing_seen():
    nothing = Moments.of(torch.zeros(0, 3))
    assert nothing.count == 0 and nothing.variance.tolist() == [0, 0, 0]
    alone = nothing.over_ranks()
    assert alone.count == 0 and alone.mean.tolist() == [0, 0, 0]


def test_padding_does_not_count():
    torch.manual_seed(0)
    values = torch.randn(2, 4, 6, 6)
    mask = torch.zeros(2, 1, 6, 6, dtype=torch.bool)
    mask[0, :, :4], mask[1, :, :, :2] = True, True
    padded = values.masked_fill(~mask, float('nan'))
    real = torch.cat([values[0, :, :4].flatten(1).T, values[1, :, :, :2].flatten(1).T])
    assert_are_those_of(Moments.of(valid_vectors(padded, mask)), real)


def test_vectors_of_summary_and_map():
    values = torch.arange(12.0).view(1, 2, 2, 3)
    expected = [[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11]]
    assert valid_vectors(values, None).tolist() == expected
    summary = torch.randn(5, 3)
    assert torch.equal(valid_vectors(summary, None), summary)


def test_agrees_with_the_log_of_training():
    torch.manual_seed(0)
    maps = (torch.randn(2, 3, 4, 4), 5 * torch.randn(2, 6, 2, 2))
    parts = [Moments.of(m.reshape(-1, 1)) for m in maps]
    expected = Features(None, maps).std().item()
    assert (parts[0] + parts[1]).variance.sqrt().item() == pytest.approx(expected, rel=1e-6)


def one_rank(rank, parts, folder):
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=len(parts)
    )
    together = Moments.of(parts[rank]).over_ranks()
    torch.save(together.__dict__, folder / f'{rank}.pt')
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_are_as_one(tmp_path):
    torch.manual_seed(0)
    vectors = anisotropic()
    parts = vectors.split([120, 380])
    multiprocessing.spawn(one_rank, (parts, tmp_path), nprocs=2)
    first, second = (Moments(**torch.load(tmp_path / f'{rank}.pt')) for rank in range(2))
    assert_are_those_of(first, vectors)
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.scatter, second.scatter)
