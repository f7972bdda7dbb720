import torch
from torch import nn

from kpu_mm.models.balancers import SecondForward


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1))


def test_same_random_numbers_and_no_trace():
    model, x = build(), torch.randn(6, 4)
    second = SecondForward(model, lambda: dict(a=model(x)))
    first = model(x)
    buffers = [b.clone() for b in model.buffers()]
    state = torch.get_rng_state()
    again = second()['a']
    assert torch.equal(again, first)
    assert not again.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, model.buffers(), buffers))
    assert not torch.equal(model(x), first)  # other random numbers


def test_sees_the_changed_weights():
    model, x = build(), torch.randn(6, 4)
    second = SecondForward(model, lambda: dict(a=model(x)))
    first = model(x)
    with torch.no_grad():
        model[3].bias += 2
    torch.testing.assert_close(second()['a'], first.detach() + 2)
