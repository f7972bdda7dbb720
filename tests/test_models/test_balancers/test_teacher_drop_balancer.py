import math

import pytest
import torch
from torch import tensor

from kpu_mm.models.balancers import TeacherDropBalancer
from kpu_mm.models.balancers.teacher_drop_balancer import keep_worst
from tests.two_processes import run_in_two

SHARED = dict(a='all', b='all', c='all')


def test_worst_is_kept_by_hand():
    losses = tensor([[1.0, 5.0, 2.0], [3.0, 4.0, 2.0]])  # (T, N)
    drawn = tensor([[0.4, 0.4, 0.4], [0.6, 0.6, 0.4]])
    # image 0: b is worst; a was drawn below 0.5. image 1: a is worst; b was
    # not. image 2: a tie, of which the first is the worst; b was.
    assert keep_worst(losses, drawn, 0.5).tolist() == [[0, 1, 1], [1, 1, 0]]


def test_loss_is_the_mean_of_what_is_kept():
    balancer = TeacherDropBalancer('abc', SHARED)
    values = torch.rand(3, 6)
    values.requires_grad_()
    torch.manual_seed(1)
    loss, weights = balancer(dict(zip('abc', values, strict=True)))
    torch.manual_seed(1)
    drawn = torch.rand(6, 3)
    kept = [
        (t, i)
        for i in range(6)
        for t in range(3)
        if drawn[i, t] >= 0.5 or values[t, i] == values[:, i].max()
    ]
    assert 6 <= len(kept) < 18
    expected = sum(values[t, i].item() for t, i in kept) / len(kept)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    for t in range(3):
        share = sum(k == t for k, _ in kept) / len(kept)
        assert weights['abc'[t]].item() == pytest.approx(share)
        for i in range(6):
            grad = 1 / len(kept) if (t, i) in kept else 0
            assert values.grad[t, i].item() == pytest.approx(grad)


def within_binomial_bound(count, trials, p):
    # 5 standard deviations: one failure in 10^6 seeds
    return abs(count - trials * p) < 5 * math.sqrt(trials * p * (1 - p))


@pytest.mark.parametrize('p', [0.3, 0.5])
def test_frequencies_per_image(p):
    torch.manual_seed(0)
    count = 20_000
    values = torch.rand(3, count, requires_grad=True)
    balancer = TeacherDropBalancer('abc', SHARED, drop_prob=p)
    balancer(dict(zip('abc', values, strict=True))).loss.backward()
    kept = values.grad > 0
    worst = torch.zeros_like(kept)
    worst[values.argmax(0), torch.arange(count)] = True
    assert kept[worst].all()
    for t in range(3):
        ahead = ~worst[t]
        assert within_binomial_bound(int((~kept[t][ahead]).sum()), int(ahead.sum()), p)


def test_frequencies_per_step():
    """Streams of their own: batches of different sizes are dropped whole."""
    torch.manual_seed(0)
    balancer = TeacherDropBalancer('abc')
    losses = dict(a=tensor([1.0, 2.0]), b=tensor([9.0, 0.0, 3.0]), c=tensor([3.0]))
    steps = 4000  # means 1.5, 4, 3: b is the worst
    kept = dict.fromkeys('abc', 0)
    for _ in range(steps):
        loss, weights = balancer(losses)
        means = [losses[n].mean() for n, w in weights.items() if w > 0]
        assert loss.item() == pytest.approx(sum(means) / len(means))
        for name, weight in weights.items():
            kept[name] += int(weight > 0)
    assert kept['b'] == steps
    for name in 'ac':
        assert within_binomial_bound(kept[name], steps, 0.5)


@pytest.mark.parametrize('streams', [None, SHARED])
def test_seed_decides_and_eval_drops_nothing(streams):
    balancer = TeacherDropBalancer('abc', streams)
    values = torch.rand(3, 8)
    losses = dict(zip('abc', values, strict=True))

    def weights(seed):
        torch.manual_seed(seed)
        return torch.stack(list(balancer(losses).weights.values()))

    drawn = [weights(seed) for seed in range(20)]
    assert all(torch.equal(weights(i), drawn[i]) for i in range(20))
    assert any(not torch.equal(w, drawn[0]) for w in drawn)
    balancer.eval()
    loss, shares = balancer(losses)
    torch.testing.assert_close(loss, values.mean())
    assert [s.item() for s in shares.values()] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize('streams', [None, SHARED])
def test_two_processes_drop_as_one(streams, tmp_path):
    values = torch.rand(3, 8)

    def run(columns, rank):
        results = []
        for step in range(10):
            torch.manual_seed(step + 1_000_003 * rank)  # as the train loop
            own = values[:, columns].clone().requires_grad_()
            loss, weights = TeacherDropBalancer('abc', streams)(dict(zip('abc', own, strict=True)))
            loss.backward()
            shares = torch.stack(list(weights.values()))
            results.append((own.grad, loss.detach(), shares))
        return results

    def half(rank):
        return run(slice(4 * rank, 4 * rank + 4), rank)

    one = run(slice(8), 0)
    for whole, *halves in zip(one, *run_in_two(half, tmp_path), strict=True):
        grads, losses, shares = zip(*halves, strict=True)
        # DDP and the log take the means over processes
        torch.testing.assert_close(torch.cat(grads, 1) / 2, whole[0])
        torch.testing.assert_close(sum(losses) / 2, whole[1])
        torch.testing.assert_close(sum(shares) / 2, whole[2])


def test_bad_probability():
    with pytest.raises(ValueError, match=r'drop_prob=1\.5'):
        TeacherDropBalancer('ab', drop_prob=1.5)
