import pytest
import torch

from kpu_mm.models.normalizers import PHISNormalizer
from kpu_mm.structures import Moments


def anisotropic(count, channels):
    mixing = torch.randn(channels, channels)
    scales = torch.logspace(-3, 2, channels)
    return torch.randn(count, channels) * scales @ mixing + 50


def test_every_channel_has_variance_one(fit, features, moments_of):
    there = fit('PHISNormalizer')(features)
    for moments in moments_of(there).values():
        one = torch.ones_like(moments.mean)
        torch.testing.assert_close(moments.variance, one, rtol=1e-4, atol=0)
        torch.testing.assert_close(moments.mean, 0 * one, rtol=0, atol=1e-4)


@pytest.mark.parametrize('channels', [192, 768, 92, 50])
def test_widths_of_teachers(channels):
    torch.manual_seed(channels)
    x = anisotropic(2 * channels, channels)
    found = PHISNormalizer(channels, ()).solve(Moments.of(x))
    y = found(x)
    variances = y.double().var(0, correction=0)
    torch.testing.assert_close(
        variances, torch.ones_like(variances), rtol=1e-4, atol=0
    )
    assert (found.invert(y) - x).abs().max() < 1e-5 * x.abs().max()


def test_one_scale_for_all_distances():
    torch.manual_seed(0)
    x = anisotropic(100, 12)
    found = PHISNormalizer(12, ()).solve(Moments.of(x))
    before, after = torch.pdist(x.double()), torch.pdist(found(x).double())
    ratio = before / after
    phi = (x.double().var(0, correction=0).mean()).sqrt()
    torch.testing.assert_close(ratio, phi.expand_as(ratio), rtol=1e-4, atol=0)


def test_the_paper_s_formula():
    """y = H U^T (x - mean) / phi, up to the directions of the axes."""
    torch.manual_seed(0)
    x = anisotropic(500, 4).double()
    found = PHISNormalizer(4, ()).solve(Moments.of(x))
    values, u = torch.linalg.eigh(torch.cov(x.T, correction=0))
    h = torch.tensor([[1, 1], [1, -1]]).double()
    h = torch.kron(h, h) / 2
    weight = found.weight.double() * values.mean().sqrt()
    # H^T W U holds signs alone
    signs = h.T @ weight @ u.flip(1)
    torch.testing.assert_close(
        signs.abs(), torch.eye(4).double(), rtol=0, atol=1e-5
    )


def test_fewer_vectors_than_channels():
    torch.manual_seed(0)
    x = anisotropic(5, 20)
    y = PHISNormalizer(20, ()).solve(Moments.of(x))(x)
    variances = y.double().var(0, correction=0)
    torch.testing.assert_close(
        variances, torch.ones_like(variances), rtol=1e-4, atol=0
    )
