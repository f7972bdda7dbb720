import torch
from torch import nn

from projects.demo_page.weight_pool import WeightPool


def test_equal_weights_become_one():
    first = nn.Linear(64, 64)
    second = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64))
    second[0].load_state_dict(first.state_dict())
    second[1].register_buffer('table', first.weight.detach().clone())
    third = nn.Linear(64, 64)
    with torch.no_grad():
        # the same sum, so that only a look at all values tells them apart
        third.weight.copy_(first.weight.flip(0))
    states = [
        {k: v.clone() for k, v in m.state_dict().items()}
        for m in (first, second, third)
    ]
    pool = WeightPool()
    for model in (first, second, third):
        pool.share(model)
    for model, state in zip((first, second, third), states, strict=True):
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name])
    address = first.weight.data_ptr()
    assert second[0].weight.data_ptr() == address
    assert second[1].table.data_ptr() == address
    assert third.weight.data_ptr() != address


def test_small_weights_and_other_types_are_left_alone():
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.load_state_dict(first.state_dict())
    large, half = nn.Linear(64, 64), nn.Linear(64, 64).half()
    half.load_state_dict(large.half().state_dict())
    pool = WeightPool()
    for model in (first, second, large.float(), half):
        pool.share(model)
    assert first.weight.data_ptr() != second.weight.data_ptr()
    assert half.weight.dtype == torch.half and large.weight.is_floating_point()
    assert half.weight.data_ptr() != large.weight.data_ptr()
