import pytest
import torch

from kpu_mm.models.normalizers.balanced_rotation import (
    balance,
    balanced_rotation,
)


def spread(order):
    torch.manual_seed(order)
    return torch.logspace(-6, 3, order).double() * torch.rand(order).double()


def assert_balances(rotation, variances):
    order = len(variances)
    identity = torch.eye(order, dtype=torch.float64)
    torch.testing.assert_close(
        rotation @ rotation.T, identity, rtol=0, atol=1e-12
    )
    along = (rotation * variances @ rotation.T).diagonal()
    torch.testing.assert_close(
        along, variances.mean().expand(order), rtol=1e-11, atol=0
    )


@pytest.mark.parametrize('order', [1, 2, 12, 48])
def test_hadamard_where_there_is_one(order):
    variances = spread(order)
    rotation = balanced_rotation(variances)
    assert_balances(rotation, variances)
    size = torch.full_like(rotation, order**-0.5)
    torch.testing.assert_close(rotation.abs(), size)


@pytest.mark.parametrize('order', [3, 6, 7, 17, 92])
def test_every_other_order(order):
    variances = spread(order)
    assert_balances(balanced_rotation(variances), variances)


def test_any_spectrum():
    for variances in (
        [1.0, 0, 0, 0, 0],
        [2.0, 2, 2],
        [1e9, 1, 1e-9],
        [0.0, 0, 0],
    ):
        values = torch.tensor(variances, dtype=torch.float64)
        assert_balances(balance(values), values)
