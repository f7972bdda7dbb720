import copy

import torch
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from kpu_mm.models.unseen import Unseen


class Toy(Unseen):
    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


class Owner(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 1)
        self.toy = Toy()


def test_nobody_meets_its_parts():
    owner = Owner().train()
    assert set(owner.state_dict()) == {'head.weight', 'head.bias'}
    assert len(list(owner.parameters())) == 2
    assert not any(m.training for m in owner.toy.part.modules())
    assert not any(p.requires_grad for p in owner.toy.part.parameters())


def test_parts_follow_to_a_device_and_into_a_copy():
    owner = Owner().to(torch.float64)
    assert owner.toy.part[0].weight.dtype == torch.float64
    twin = copy.deepcopy(owner)
    assert twin.toy.part[0].weight is not owner.toy.part[0].weight


def test_weights_under_its_name_are_passed_over():
    state = Owner().state_dict()
    state['toy.conv.weight'] = torch.ones(3)
    Owner().load_state_dict(state, strict=True)
    load_state_dict(Owner(), state, strict=True)
