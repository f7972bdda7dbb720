import math

import pytest
import torch
from torch import tensor

from kpu_mm.models.balancers import AdaLossBalancer, UncertaintyBalancer
from tests.two_processes import run_in_two


def shares(balance):
    return [weight.item() for weight in balance.weights.values()]


def test_ada_loss_by_hand():
    balancer = AdaLossBalancer(['a', 'b'], momentum=0.5)
    first = balancer(dict(a=tensor([1.0, 3.0]), b=tensor([6.0])))
    # nothing is known yet: (2 + 6) / 2
    assert first.loss.item() == 4
    assert shares(first) == [0.5, 0.5]
    second = balancer(dict(a=tensor([4.0]), b=tensor([10.0])))
    # averages (2, 6), inverse (1/2, 1/6), which is (3/4, 1/4) of the sum
    assert shares(second) == pytest.approx([3 / 4, 1 / 4])
    assert second.loss.item() == pytest.approx(3 / 4 * 4 + 1 / 4 * 10)
    third = balancer(dict(a=tensor([1.0]), b=tensor([1.0])))
    # averages (0.5 * 2 + 0.5 * 4, 0.5 * 6 + 0.5 * 10) = (3, 8)
    assert shares(third) == pytest.approx([8 / 11, 3 / 11])


def test_ada_loss_state_and_eval():
    balancer, other = AdaLossBalancer('ab'), AdaLossBalancer('ab')
    losses = dict(a=torch.rand(3), b=5 * torch.rand(2))
    balancer(losses)
    balancer.eval()
    assert balancer(losses).loss == balancer(losses).loss
    other.load_state_dict(balancer.state_dict())
    balancer.train()
    for _ in range(3):
        assert torch.equal(balancer(losses).loss, other(losses).loss)
    assert torch.equal(balancer.averages, other.averages)


def test_two_processes_average_as_one(tmp_path):
    values = torch.rand(5, 2, 4)  # (step, teacher, image)

    def run(images):
        balancer = AdaLossBalancer('ab')
        for step in values:
            loss, _ = balancer(dict(a=step[0, images], b=step[1, images]))
        return loss, balancer.averages

    loss, averages = run(slice(4))
    two = run_in_two(lambda r: run(slice(2 * r, 2 * r + 2)), tmp_path)
    torch.testing.assert_close((two[0][0] + two[1][0]) / 2, loss)
    torch.testing.assert_close(two[0][1], averages)
    assert torch.equal(two[0][1], two[1][1])


def test_uncertainty_by_hand():
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


def test_uncertainty_is_a_sum_over_streams():
    balancer = UncertaintyBalancer(['a', 'b'])
    balancer.log_variances.data = torch.randn(2)
    losses = dict(a=torch.rand(3), b=torch.rand(2))
    parts = [balancer({k: v}).loss for k, v in losses.items()]
    torch.testing.assert_close(sum(parts), balancer(losses).loss)


def test_uncertainty_learns_the_losses_logarithm():
    balancer = UncertaintyBalancer(['a', 'b'])
    optimizer = torch.optim.SGD(balancer.parameters(), lr=0.2)
    for _ in range(300):
        optimizer.zero_grad()
        balancer(dict(a=tensor([0.5]), b=tensor([3.0]))).loss.backward()
        optimizer.step()
    # the minimum over s of exp(-s) L + s
    torch.testing.assert_close(balancer.log_variances.data, tensor([0.5, 3.0]).log())
