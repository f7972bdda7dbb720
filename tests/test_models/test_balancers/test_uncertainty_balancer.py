import math

import pytest
import torch
from torch import tensor

from kpu_mm.models.balancers import UncertaintyBalancer


def test_loss_and_gradients_by_hand():
    balancer = UncertaintyBalancer(['a', 'b'])
    balancer.log_variances.data = tensor([math.log(4), 0.0])
    losses = dict(a=tensor([1.0, 3.0], requires_grad=True), b=tensor([6.0]))
    loss, weights = balancer(losses)
    # (2 / 4 + ln 4) / 2 + (6 + 0) / 2
    assert loss.item() == pytest.approx(1 / 4 + math.log(2) + 3)
    assert weights['a'].item() == pytest.approx(1 / 8)
    assert weights['b'].item() == pytest.approx(1 / 2)
    assert not weights['a'].requires_grad
    loss.backward()
    assert losses['a'].grad.tolist() == pytest.approx([1 / 16, 1 / 16])
    # d/ds = (1 - exp(-s) L) / 2 = ((1 - 2/4) / 2, (1 - 6) / 2)
    assert balancer.log_variances.grad.tolist() == pytest.approx([1 / 4, -2.5])


def test_parts_add_up():
    balancer = UncertaintyBalancer(['a', 'b'])
    balancer.log_variances.data = torch.randn(2)
    losses = dict(a=torch.rand(3), b=torch.rand(2))
    parts = [balancer({k: v}).loss for k, v in losses.items()]
    torch.testing.assert_close(sum(parts), balancer(losses).loss)


def test_learns_the_losses_logarithm():
    balancer = UncertaintyBalancer(['a', 'b'])
    optimizer = torch.optim.SGD(balancer.parameters(), lr=0.2)
    for _ in range(300):
        optimizer.zero_grad()
        balancer(dict(a=tensor([0.5]), b=tensor([3.0]))).loss.backward()
        optimizer.step()
    # the minimum over s of exp(-s) L + s
    torch.testing.assert_close(
        balancer.log_variances.data, tensor([0.5, 3.0]).log()
    )
