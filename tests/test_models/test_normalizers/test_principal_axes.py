import pytest
import torch

from kpu_mm.models.normalizers.principal_axes import principal_axes


def test_decomposes_with_the_largest_first():
    torch.manual_seed(0)
    mixing = torch.randn(6, 6, dtype=torch.float64)
    covariance = mixing @ mixing.T
    variances, axes = principal_axes(covariance)
    torch.testing.assert_close(axes * variances @ axes.T, covariance)
    assert (variances.diff() < 0).all()
    for axis in axes.T:
        assert axis[axis.abs().argmax()] > 0


def test_by_hand():
    covariance = torch.tensor([[2.0, -1.0], [-1.0, 2.0]], dtype=torch.float64)
    variances, axes = principal_axes(covariance)
    half = 0.5**0.5
    assert variances.tolist() == pytest.approx([3, 1])
    assert axes[:, 1].tolist() == pytest.approx([half, half])
    assert axes[:, 0].abs().tolist() == pytest.approx([half, half])
    assert axes[0, 0] == -axes[1, 0]


def test_nothing_varies():
    with pytest.raises(ValueError, match='all the same'):
        principal_axes(torch.zeros(3, 3, dtype=torch.float64))
