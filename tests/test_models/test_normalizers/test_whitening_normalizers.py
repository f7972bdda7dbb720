import pytest
import torch

from kpu_mm.models.normalizers import PCANormalizer
from kpu_mm.structures import Moments


@pytest.mark.parametrize('name', ['PCANormalizer', 'ZCANormalizer', 'HCANormalizer'])
def test_covariance_becomes_the_identity(fit, features, moments_of, name):
    there = fit(name)(features)
    for moments in moments_of(there).values():
        identity = torch.eye(len(moments.mean), dtype=torch.float64)
        torch.testing.assert_close(moments.covariance, identity, rtol=0, atol=1e-4)


def test_zca_is_the_inverse_root_of_the_covariance(fit, features, moments_of):
    normalizer = fit('ZCANormalizer')
    for i, affine in enumerate(normalizer.maps):
        w = affine.weight.double()
        torch.testing.assert_close(w, w.T, rtol=1e-5, atol=1e-6)
        assert torch.linalg.eigvalsh(w).min() > 0
        covariance = moments_of(features)[f'map {i}'].covariance
        torch.testing.assert_close(
            w @ covariance @ w, torch.eye(len(w), dtype=torch.float64), rtol=0, atol=1e-4
        )


def test_pca_orders_the_axes(fit, features, moments_of):
    affine = fit('PCANormalizer').maps[0]
    covariance = moments_of(features)['map 0'].covariance
    # a row of W is an axis over its deviation
    std = 1 / affine.weight.double().norm(dim=1)
    expected = torch.linalg.eigvalsh(covariance).flip(0).sqrt()
    torch.testing.assert_close(std, expected, rtol=1e-4, atol=0)


def test_hca_errors_weigh_the_same_in_each_channel(fit, features, moments_of):
    normalizer = fit('HCANormalizer')
    for i, affine in enumerate(normalizer.maps):
        covariance = moments_of(features)[f'map {i}'].covariance
        sizes = affine.inverse.double().square().sum(0)
        expected = covariance.diagonal().mean().expand_as(sizes)
        torch.testing.assert_close(sizes, expected, rtol=1e-4, atol=0)


def test_too_few_vectors():
    with pytest.raises(ValueError, match=r'4 vectors .* of 4 channels'):
        PCANormalizer(4, ()).solve(Moments.of(torch.randn(4, 4)))


def test_a_flat_direction_is_bounded():
    torch.manual_seed(0)
    x = torch.randn(100, 2) * torch.tensor([3.0, 0.0])
    normalizer = PCANormalizer(2, (), min_variance=1e-4)
    found = normalizer.solve(Moments.of(x))
    scales = found.weight.norm(dim=1)
    assert scales[1] / scales[0] == pytest.approx(100)
    torch.testing.assert_close(found.invert(found(x)), x)
