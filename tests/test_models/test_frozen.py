import copy

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from kpu_mm.models.frozen import EvalModule, ExternalModule, FrozenModule


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


def run_as(module):
    with torch.autocast('cpu', torch.bfloat16), module.in_autocast(torch.device('cpu')) as run:
        assert torch.is_autocast_enabled('cpu') == (run is module)
        return run


def test_autocast_runs_one_copy_in_bfloat16():
    toy = Toy()
    half = run_as(toy)
    assert {p.dtype for p in half.state_dict().values()} == {torch.bfloat16, torch.int64}
    assert run_as(toy) is half
    # nothing of it belongs to the module, whose weights stay as they were
    assert len(list(toy.modules())) == 4
    assert all(p.dtype == torch.float32 for p in toy.parameters())
    with toy.in_autocast(torch.device('cpu')) as run:
        assert run is toy


def test_autocast_takes_new_weights():
    toy = Toy()
    before = run_as(toy).scale.item()
    toy.load_state_dict({k: v + 1 for k, v in toy.state_dict().items()})
    assert run_as(toy).scale.item() == before + 1


def test_autocast_leaves_alone_what_it_must():
    class Mixed(Toy):
        casts_whole = False

    assert run_as(mixed := Mixed()) is mixed
    trained = EvalModule()
    trained.net = nn.Linear(2, 2)
    assert run_as(trained) is trained
    assert run_as(weightless := EvalModule()) is weightless
    toy = Toy()
    with torch.autocast('cpu', torch.float16), toy.in_autocast(torch.device('cpu')) as run:
        assert run is toy


class External(ExternalModule):
    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


class Owner(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 1)
        self.toy = External()


def test_nobody_meets_external_parts():
    owner = Owner().train()
    assert set(owner.state_dict()) == {'head.weight', 'head.bias'}
    assert len(list(owner.parameters())) == 2
    assert not any(m.training for m in owner.toy.part.modules())
    assert not any(p.requires_grad for p in owner.toy.part.parameters())


def test_external_parts_follow_to_a_device_and_into_a_copy():
    owner = Owner().to(torch.float64)
    assert owner.toy.part[0].weight.dtype == torch.float64
    twin = copy.deepcopy(owner)
    assert twin.toy.part[0].weight is not owner.toy.part[0].weight


def test_weights_under_its_name_are_ignored():
    state = Owner().state_dict()
    state['toy.conv.weight'] = torch.ones(3)
    Owner().load_state_dict(state, strict=True)
    load_state_dict(Owner(), state, strict=True)
