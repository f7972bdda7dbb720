import pytest
import torch

from kpu_mm.models.normalizers import StandardNormalizer
from kpu_mm.structures import Moments


def test_by_hand():
    values = torch.tensor([[0.0, 4], [2, 10]])
    found = StandardNormalizer(2, ()).solve(Moments.of(values))
    torch.testing.assert_close(
        found(values), torch.tensor([[-1.0, -1], [1, 1]])
    )


def test_every_channel(fit, features, moments_of):
    there = fit('StandardNormalizer')(features)
    for moments in moments_of(there).values():
        one = torch.ones_like(moments.mean)
        torch.testing.assert_close(moments.mean, 0 * one, rtol=0, atol=1e-4)
        torch.testing.assert_close(moments.variance, one, rtol=1e-5, atol=0)


def test_a_channel_that_does_not_vary():
    values = torch.tensor([[0.0, 4, 1], [2, 4, 3]])
    with pytest.raises(ValueError, match=r'channels \[1\] of 3 never change'):
        StandardNormalizer(3, ()).solve(Moments.of(values))
