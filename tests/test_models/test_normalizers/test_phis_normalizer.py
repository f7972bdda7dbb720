import pytest
import torch

from kpu_mm.models.normalizers import PHISNormalizer
from kpu_mm.models.normalizers.phis_normalizers import balanced_rotation, principal_axes
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
    torch.testing.assert_close(variances, torch.ones_like(variances), rtol=1e-4, atol=0)
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
    """y = H U^T (x - mean) / phi, up to the directions of the axes.

    With 4 channels the balanced rotation is a Hadamard matrix, as in the
    paper.
    """
    torch.manual_seed(0)
    x = anisotropic(500, 4).double()
    found = PHISNormalizer(4, ()).solve(Moments.of(x))
    values, u = torch.linalg.eigh(torch.cov(x.T, correction=0))
    h = torch.tensor([[1, 1, 1, 1], [1, -1, -1, 1], [1, 1, -1, -1], [1, -1, 1, -1]]).double()
    weight = found.weight.double() * values.mean().sqrt()
    # H^T W U holds signs alone
    signs = (h / 2).T @ weight @ u.flip(1)
    torch.testing.assert_close(signs.abs(), torch.eye(4).double(), rtol=0, atol=1e-5)


def test_fewer_vectors_than_channels():
    torch.manual_seed(0)
    x = anisotropic(5, 20)
    y = PHISNormalizer(20, ()).solve(Moments.of(x))(x)
    variances = y.double().var(0, correction=0)
    torch.testing.assert_close(variances, torch.ones_like(variances), rtol=1e-4, atol=0)


def spread(order):
    torch.manual_seed(order)
    return torch.logspace(-6, 3, order).double() * torch.rand(order).double()


def assert_balances(rotation, variances):
    order = len(variances)
    identity = torch.eye(order, dtype=torch.float64)
    torch.testing.assert_close(rotation @ rotation.T, identity, rtol=0, atol=1e-12)
    along = (rotation * variances @ rotation.T).diagonal()
    torch.testing.assert_close(along, variances.mean().expand(order), rtol=1e-11, atol=0)


@pytest.mark.parametrize('order', [1, 2, 3, 6, 7, 12, 17, 48, 92])
def test_rotation_of_any_order(order):
    variances = spread(order)
    assert_balances(balanced_rotation(variances), variances)


def test_rotation_of_any_spectrum():
    for variances in ([1.0, 0, 0, 0, 0], [2.0, 2, 2], [1e9, 1, 1e-9], [0.0, 0, 0]):
        values = torch.tensor(variances, dtype=torch.float64)
        assert_balances(balanced_rotation(values), values)


@pytest.mark.parametrize('order', [12, 50, 768])
def test_rotation_is_robust_to_rounding(order):
    """Two processes measure moments that differ by rounding."""
    variances = spread(order).sort(descending=True).values
    noise = 1 + 1e-6 * torch.randn(order, dtype=torch.float64)
    moved = balanced_rotation(variances * noise)
    # entries are of the size of order ** -0.5
    torch.testing.assert_close(moved, balanced_rotation(variances), rtol=0, atol=1e-4 * order**-0.5)


def test_axes_with_the_largest_variance_first():
    torch.manual_seed(0)
    mixing = torch.randn(6, 6, dtype=torch.float64)
    covariance = mixing @ mixing.T
    variances, axes = principal_axes(covariance)
    torch.testing.assert_close(axes * variances @ axes.T, covariance)
    assert (variances.diff() < 0).all()
    for axis in axes.T:
        assert axis[axis.abs().argmax()] > 0


def test_axes_by_hand():
    covariance = torch.tensor([[2.0, -1.0], [-1.0, 2.0]], dtype=torch.float64)
    variances, axes = principal_axes(covariance)
    half = 0.5**0.5
    assert variances.tolist() == pytest.approx([3, 1])
    assert axes[:, 1].tolist() == pytest.approx([half, half])
    assert axes[:, 0].abs().tolist() == pytest.approx([half, half])
    assert axes[0, 0] == -axes[1, 0]


def test_axes_of_nothing():
    with pytest.raises(ValueError, match='all the same'):
        principal_axes(torch.zeros(3, 3, dtype=torch.float64))
