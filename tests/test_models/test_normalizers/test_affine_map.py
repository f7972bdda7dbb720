import copy

import pytest
import torch
from torch import nn

from kpu_mm.models.normalizers import AffineMap


def make(dense, channels=5):
    torch.manual_seed(0)
    weight = torch.rand(channels, dtype=torch.float64) + 0.5
    if dense:
        weight = (
            weight
            * torch.linalg.qr(
                torch.randn(channels, channels, dtype=torch.float64)
            )[0]
        )
    inverse = torch.linalg.inv(weight) if dense else 1 / weight
    return AffineMap(10 * torch.randn(channels), weight, inverse)


def test_by_hand():
    diagonal = AffineMap(*map(torch.tensor, ([1, 2], [2.0, 4], [0.5, 0.25])))
    assert diagonal(torch.tensor([2.0, 2.5])).tolist() == [2, 2]
    assert diagonal.invert(torch.tensor([2.0, 2])).tolist() == [2, 2.5]
    # (x, y) -> (2 y, x)
    matrix = torch.tensor([[0.0, 2], [1, 0]])
    swap = AffineMap(torch.ones(2), matrix, torch.linalg.inv(matrix))
    assert swap(torch.tensor([4.0, 3])).tolist() == [4, 3]
    assert swap.invert(torch.tensor([4.0, 3])).tolist() == [4, 3]
    assert swap(torch.tensor([[2.0, 2], [1, 2]])).tolist() == [[2, 1], [2, 0]]


@pytest.mark.parametrize('dense', [False, True])
def test_a_folded_layer_gives_the_inverse_of_what_it_gave(dense):
    affine = make(dense)
    linear = nn.Linear(7, 5)
    folded = copy.deepcopy(linear)
    affine.fold_into(folded)
    x = torch.randn(3, 4, 7)
    torch.testing.assert_close(
        folded(x), affine.invert(linear(x)), rtol=1e-5, atol=1e-5
    )
    assert folded.weight.requires_grad
