import pytest
import torch
from torch import nn

from kpu_mm.models.frozen import FrozenModule


class Toy(FrozenModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.net(x) * self.scale


def test_is_frozen_without_a_call():
    toy = Toy()
    assert not any(p.requires_grad for p in toy.parameters())
    assert not any(m.training for m in toy.modules())


def test_survives_the_train_of_an_owner():
    owner = nn.Sequential(Toy(), nn.BatchNorm2d(4))
    assert owner.train() is owner
    assert owner[1].training
    assert not any(m.training for m in owner[0].modules())
    before = owner[0].net[1].running_mean.clone()
    owner(torch.randn(2, 3, 5, 5))
    assert torch.equal(owner[0].net[1].running_mean, before)
    assert owner[0].train(True) is owner[0]


def test_gradients_pass_through():
    x = torch.randn(1, 3, 2, 2, requires_grad=True)
    toy = Toy()
    toy(x).sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in toy.parameters())


def test_refuses_to_be_unfrozen():
    with pytest.raises(RuntimeError, match='Toy is frozen'):
        Toy().requires_grad_()
    assert Toy().requires_grad_(False)
