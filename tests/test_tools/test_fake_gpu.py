"""What the fake GPU counts, and what it finds."""

import pytest
import torch
import torch.nn.functional as F
from rehearsal.stand_ins import fake_gpu
from torch import nn

from kpu_mm.models.layers.deform_attention import deformable_attention, level_tensors

HERE = 'tests/test_tools/test_fake_gpu.py'


def line_of(text):
    """Number of the first line of this file that holds a text."""
    with open(__file__, encoding='utf-8') as file:
        return next(i for i, line in enumerate(file, start=1) if text in line)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 32)
        self.second = nn.Linear(32, 16)
        self.offset = torch.ones(16)  # no buffer: it follows to no device

    def forward(self, x):
        return self.second(self.first(x))


def on_gpu(gpu, net):
    net.to('cuda')
    gpu.prepare(net.parameters())
    gpu.forget()
    return net


def test_the_gpu_is_gone_afterwards():
    available = torch.cuda.is_available()
    with fake_gpu({}):
        assert torch.cuda.is_available()
        assert torch.zeros(2, device='cuda').is_cuda
        assert torch.ones(2).sum().item() == 2  # the host computes
    assert torch.cuda.is_available() == available
    x = torch.ones(2, requires_grad=True)
    x.sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_arithmetic_traffic_and_parts():
    net = Net()
    parts = {net.first: 'first', net.second: 'second'}
    with fake_gpu(parts) as gpu:
        on_gpu(gpu, net)
        net(torch.zeros(8, 64).to('cuda', non_blocking=True)).sum().backward()
    products = [k for k in gpu.kernels if k.flops]
    flops = {}
    for k in products:
        flops[k.part, k.backward] = flops.get((k.part, k.backward), 0) + k.flops
    # the images themselves need no gradient
    once = 2 * 8 * 64 * 32
    assert flops['first', False] == flops['first', True] == once
    assert flops['second', True] == 2 * flops['second', False] == 2 * 2 * 8 * 32 * 16
    first = products[0]
    assert first.name == 'addmm'
    assert first.bytes == 4 * (8 * 64 + 64 * 32 + 32 + 8 * 32)
    assert not gpu.waits and not gpu.mistakes


def test_peak_of_memory():
    with fake_gpu({}) as gpu:
        kept = torch.empty(1000, device='cuda')
        gone = torch.empty(3000, device='cuda')
        view = kept[:10]  # no memory of its own
        del gone
        more = torch.empty(500, device='cuda')
    assert gpu.peak.total() == 4 * 4000
    assert gpu.live.total() == 4 * 1500
    del kept, view, more


def test_a_wrong_device():
    net = Net()
    with fake_gpu({}) as gpu:
        on_gpu(gpu, net)
        out = net(torch.zeros(8, 64, device='cuda'))
        out = out * net.offset  # wrong device
        assert out.is_cuda  # and the step goes on
    ((what, place),) = gpu.mistakes
    assert what == 'found two different devices cuda:0, cpu in mul'
    assert place == f'{HERE}:{line_of("# wrong device")}'


def test_waits():
    with fake_gpu({}) as gpu:
        x = torch.zeros(8, 64).to('cuda')  # pageable
        x.sum().item()  # one value
        x.mean(0).tolist()  # all values
        x.new_tensor(0.5)  # a number
        x[x[:, 0] > 0]  # chosen
        torch.as_tensor([1, 2], device=x.device)  # a list
    found = {place: (what, n) for (what, place), n in gpu.waits.items()}
    for mark, what in (
        ('# pageable', 'copy to the GPU'),
        ('# one value', '.item()'),
        ('# all values', 'copy to the host'),
        ('# a number', 'copy to the GPU'),
        ('# chosen', 'a size that depends on values'),
        ('# a list', 'copy to the GPU'),
    ):
        assert found.pop(f'{HERE}:{line_of(mark)}') == (what, 1)
    assert not found


def test_what_does_not_wait():
    with fake_gpu({}) as gpu:
        x = torch.zeros(8, 64).to('cuda', non_blocking=True)
        x.new_full((), 3.0) * x
        x[x > 0] = 1.0
        x.to('cpu', non_blocking=True)
        x.to('cuda')
        level_tensors([2, 3, 1, 2], x.device)
    assert not gpu.waits


def test_values_of_small_tensors_are_known():
    with fake_gpu({}) as gpu:
        shapes = torch.as_tensor([[2, 3], [4, 5]], device='cuda')
        assert shapes.prod(1).cumsum(0).tolist() == [6, 26]
        shapes[0] += 1
        assert shapes[0, 1].item() == 4
        # what is computed from unknown values is unknown
        shapes.copy_(torch.empty(2, 2000, device='cuda').sum(1, keepdim=True).long())
        assert torch.isfinite(shapes).all()
    assert gpu.waits


@pytest.mark.parametrize('shape', [(2, 4, 8, 64), (8, 8, 64)])  # heads apart or not
@pytest.mark.parametrize(
    ('mask', 'kernel'), [(False, 'flash_attention'), (True, 'efficient_attention')]
)
def test_autocast_and_attention(mask, kernel, shape):
    with fake_gpu({}) as gpu:
        layer = on_gpu(gpu, nn.Linear(64, 64))
        x = torch.zeros(shape, device='cuda')
        with torch.autocast('cuda', dtype=torch.bfloat16):
            q = layer(x)
            assert q.dtype == torch.bfloat16
            assert F.layer_norm(q, (64,)).dtype == torch.float32
            given = torch.zeros(8, 8, device='cuda', dtype=torch.bool) if mask else None
            out = F.scaled_dot_product_attention(q, q, q, attn_mask=given)
            assert out.shape == shape
            out.sum().backward()
    names = [k.name for k in gpu.kernels]
    (forward,) = (k for k in gpu.kernels if k.name == f'_scaled_dot_product_{kernel}')
    # two products of 8 heads, multiplications and additions
    assert forward.flops == 2 * 2 * 8 * 8 * 8 * 64
    assert f'_scaled_dot_product_{kernel}' in names
    assert f'_scaled_dot_product_{kernel}_backward' in names
    assert layer.weight.grad.dtype == torch.float32


def test_deformable_attention_is_one_kernel():
    with fake_gpu({}) as gpu:
        value = torch.zeros(2, 6, 4, 8, device='cuda', requires_grad=True)
        gpu.prepare([value])
        locations = torch.zeros(2, 5, 4, 1, 3, 2, device='cuda')
        weights = torch.zeros(2, 5, 4, 1, 3, device='cuda')
        out = deformable_attention(value, [(2, 3)], locations, weights)
        assert out.shape == (2, 5, 32)
        out.sum().backward()
        assert value.grad.shape == value.shape
    names = [k.name for k in gpu.kernels]
    assert names.count('deformable_attention') == 1
    assert names.count('deformable_attention_backward') == 1
