import math

import numpy as np
import pytest
import torch
from torch import tensor

from kpu_mm.models.balancers import FAMOBalancer
from tests.two_processes import run_in_two


def losses_of(a, b):
    return dict(a=tensor(a, requires_grad=True), b=tensor(b))


def test_first_loss_and_its_gradient_by_hand():
    losses = losses_of([1.0, 3.0], [6.0])
    loss, weights = FAMOBalancer(['a', 'b'])(losses)
    # means D = (2, 6), z = (1/2, 1/2), so c = 1 / (1/4 + 1/12) = 3
    assert loss.item() == pytest.approx(3 * (math.log(2) / 2 + math.log(6) / 2))
    # c z / D = (3/4, 1/4), of which each of a's two images has half
    assert weights['a'].item() == pytest.approx(3 / 4)
    assert weights['b'].item() == pytest.approx(1 / 4)
    loss.backward()
    assert losses['a'].grad.tolist() == pytest.approx([3 / 8, 3 / 8])


def test_minima_by_hand():
    balancer = FAMOBalancer(['a', 'b'], min_losses=dict(b=4.0))
    loss, weights = balancer(losses_of([1.0, 3.0], [6.0]))
    # D = (2, 6 - 4) = (2, 2), so c = 2 and both weigh 1/2
    assert loss.item() == pytest.approx(2 * math.log(2))
    assert weights['a'].item() == pytest.approx(1 / 2)


def test_first_update_by_hand():
    balancer = FAMOBalancer(['a', 'b'])
    balancer(losses_of([1.0, 3.0], [6.0]))
    balancer.after_step(losses_of([1.0, 1.0], [6.0]))
    # log D fell by (ln 2, 0), on average over z by ln 2 / 2: the gradient
    # is (1/2 (ln 2 - ln 2 / 2), 1/2 (0 - ln 2 / 2)); it is all that Adam's
    # moments hold, times 1 - beta
    grad = tensor([math.log(2) / 4, -math.log(2) / 4])
    torch.testing.assert_close(balancer.moment, 0.1 * grad)
    torch.testing.assert_close(balancer.square_moment, 0.001 * grad**2)
    # Adam's first step is lr against the gradient's sign
    assert balancer.logits.tolist() == pytest.approx([-0.025, 0.025])
    # who fell faster counts less: z = 1 / (1 + exp(+-0.05))
    weights = balancer(losses_of([1.0], [1.0])).weights
    assert weights['a'].item() == pytest.approx(1 / (1 + math.exp(0.05)))


def test_equal_rates_change_nothing():
    balancer = FAMOBalancer(['a', 'b'])
    balancer(losses_of([4.0], [8.0]))
    balancer.after_step(losses_of([1.0], [2.0]))
    assert balancer.logits.abs().max() < 1e-6


# A problem of two losses with conflicting gradients at different scales,
# and Algorithm 2 of the paper in numpy.
CENTRES = np.array([[1.0, -2.0], [-0.5, 3.0]])
CURVATURES = np.array([[1.0, 0.2], [30.0, 5.0]])
MINIMA = np.array([0.1, 2.0])
STEPS, RATE, LR, GAMMA = 400, 0.02, 0.025, 0.001


def numpy_losses(theta):
    return MINIMA + (CURVATURES * (theta - CENTRES) ** 2).sum(1)


def numpy_famo():
    theta, xi, m, v = (np.zeros(2) for _ in range(4))
    path = []
    for t in range(1, STEPS + 1):
        z = np.exp(xi) / np.exp(xi).sum()
        d = numpy_losses(theta) - MINIMA + 1e-8
        c = 1 / (z / d).sum()
        gradients = 2 * CURVATURES * (theta - CENTRES)
        theta = theta - RATE * (c * z / d) @ gradients
        delta = np.log(d) - np.log(numpy_losses(theta) - MINIMA + 1e-8)
        jacobian = np.diag(z) - np.outer(z, z)
        g = jacobian.T @ delta + GAMMA * xi
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        xi = xi - LR * m_hat / (np.sqrt(v_hat) + 1e-8)
        path.append([*theta, *xi])
    return np.array(path)


def torch_losses(theta):
    squares = tensor(CURVATURES) * (theta - tensor(CENTRES)) ** 2
    values = tensor(MINIMA) + squares.sum(1)
    return dict(a=values[0:1], b=values[1:2])


def torch_famo(balancer, theta, steps):
    optimizer = torch.optim.SGD([theta], lr=RATE)
    path = []
    for _ in range(steps):
        optimizer.zero_grad()
        balancer(torch_losses(theta)).loss.backward()
        optimizer.step()
        balancer.after_step(torch_losses(theta))
        path.append(torch.cat([theta.detach(), balancer.logits]))
    return torch.stack(path)


def build():
    minima = dict(zip('ab', MINIMA, strict=True))
    balancer = FAMOBalancer(['a', 'b'], min_losses=minima).double()
    balancer.min_losses.copy_(tensor(MINIMA))  # was rounded to float32
    return balancer


def test_many_steps_of_the_papers_algorithm():
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    path = torch_famo(build(), theta, STEPS)
    expected = numpy_famo()
    assert np.abs(expected[:, 2]).max() > 0.2  # the logits did move
    np.testing.assert_allclose(path.numpy(), expected, rtol=0, atol=1e-9)


def test_state_continues_bit_for_bit():
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    balancer = build()
    torch_famo(balancer, theta, 20)
    state = {k: v.clone() for k, v in balancer.state_dict().items()}
    assert state.keys() == {'logits', 'steps', 'moment', 'square_moment'}
    resumed, other = build(), theta.detach().clone().requires_grad_()
    resumed.load_state_dict(state)
    first = torch_famo(balancer, theta, 20)
    assert torch.equal(torch_famo(resumed, other, 20), first)


def test_two_processes_weigh_as_one(tmp_path):
    first = tensor([[1.0, 2.0], [3.0, 5.0]])  # (rank, image)
    second = tensor([[9.0], [4.0]])

    def run(parts):
        balancer = FAMOBalancer(['a', 'b'])
        outputs = []
        for scale in (1.0, 0.5, 0.4):
            own = first[parts].flatten().clone().requires_grad_()
            losses = dict(a=scale * own, b=second[parts].flatten())
            loss, weights = balancer(losses)
            loss.backward()
            balancer.after_step(dict(losses, a=losses['a'] / 2))
            outputs += [loss.detach(), weights['a'], own.grad]
        return [*outputs, balancer.logits]

    one = run([0, 1])
    two = run_in_two(lambda rank: run([rank]), tmp_path)
    for k, value in enumerate(one):
        parts = [result[k] for result in two]
        if value.dim() and len(value) == 4:  # DDP averages gradients
            parts = [torch.cat(parts) / 2]
        for part in parts:
            torch.testing.assert_close(part, value)
    assert torch.equal(two[0][-1], two[1][-1])


def test_what_a_user_may_get_wrong():
    with pytest.raises(ValueError, match=r"teachers are \['a', 'b'\]"):
        FAMOBalancer(['a', 'b'], min_losses=dict(c=1.0))
    with pytest.raises(ValueError, match=r"no losses of \['b'\]"):
        FAMOBalancer(['a', 'b'])(dict(a=tensor([1.0])))
