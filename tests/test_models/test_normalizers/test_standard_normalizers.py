import pytest
import torch

from kpu_mm.models.normalizers import GlobalStandardNormalizer, StandardNormalizer
from kpu_mm.structures import Features, Moments, valid_vectors


def test_global_by_hand():
    # values 0, 2, 4 and 6: mean 3, variance 5
    values = torch.tensor([[0.0, 4], [2, 6]])
    found = GlobalStandardNormalizer(2, ()).solve(Moments.of(values))
    torch.testing.assert_close(found(values), (values - 3) / 5**0.5)


def test_all_values_together(fit, features):
    there = fit('GlobalStandardNormalizer')(features)
    for _, values, mask in there.outputs():
        valid = valid_vectors(values, mask).double()
        assert valid.mean().item() == pytest.approx(0, abs=1e-5)
        assert valid.std(correction=0).item() == pytest.approx(1, rel=1e-5)


def test_channels_keep_their_proportions(fit, features):
    normalizer = fit('GlobalStandardNormalizer')
    there = normalizer(features).maps[0]
    ratio = features.maps[0].diff(dim=-1) / there.diff(dim=-1)
    torch.testing.assert_close(ratio.median(), normalizer.maps[0].inverse[0], rtol=1e-4, atol=0)
    assert len(normalizer.maps[0].inverse.unique()) == 1


def test_nothing_varies():
    features = Features(None, (torch.ones(1, 2, 3, 3),))
    moments = Moments.of(valid_vectors(features.maps[0], None))
    with pytest.raises(ValueError, match=r'map 0: .* same value'):
        GlobalStandardNormalizer(None, (2,)).fit({'map 0': moments})


def test_standard_by_hand():
    values = torch.tensor([[0.0, 4], [2, 10]])
    found = StandardNormalizer(2, ()).solve(Moments.of(values))
    torch.testing.assert_close(found(values), torch.tensor([[-1.0, -1], [1, 1]]))


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
