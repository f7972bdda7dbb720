import math

import pytest
import torch

from kpu_mm.evaluation.functional import (
    add_sums,
    biased_hsic,
    linear_cka,
    linear_sums,
    unbiased_hsic,
    unbiased_linear_cka,
)

CLOSE = dict(rtol=1e-9, atol=1e-12)


def random_features(n=23, c=5, d=8):
    x = torch.randn(n, c, dtype=torch.float64) + 3
    # shares some directions with x
    y = x @ torch.randn(c, d, dtype=torch.float64)
    return x, y + torch.randn(n, d, dtype=torch.float64)


def centred_hsic(x, y):
    """With Gram and centring matrices, as in the paper."""
    n = len(x)
    h = torch.eye(n, dtype=torch.float64) - 1 / n
    return torch.trace(x @ x.T @ h @ y @ y.T @ h) / (n - 1) ** 2


def u_statistic(x, y):
    """The mean over ordered tuples of different samples, term by term."""
    kx, ky = x @ x.T, y @ y.T
    n = range(len(x))
    pairs = [kx[i, j] * ky[i, j] for i in n for j in n if i != j]
    triples = [
        kx[i, j] * ky[i, q]
        for i in n
        for j in n
        for q in n
        if len({i, j, q}) == 3
    ]
    quadruples = [
        kx[i, j] * ky[q, r]
        for i in n
        for j in n
        for q in n
        for r in n
        if len({i, j, q, r}) == 4
    ]
    means = [sum(v) / len(v) for v in (pairs, triples, quadruples)]
    return means[0] - 2 * means[1] + means[2]


def test_biased_hsic_is_the_formula_with_centring_matrices():
    x, y = random_features()
    torch.testing.assert_close(
        biased_hsic(linear_sums(x, y)), centred_hsic(x, y), **CLOSE
    )


def test_cka_is_the_ratio_of_three_hsics():
    x, y = random_features()
    expected = centred_hsic(x, y) / math.sqrt(
        centred_hsic(x, x) * centred_hsic(y, y)
    )
    torch.testing.assert_close(linear_cka(x, y), expected, **CLOSE)
    assert 0 < expected < 1


def test_unbiased_hsic_is_the_u_statistic():
    x, y = random_features(n=7)
    torch.testing.assert_close(
        unbiased_hsic(linear_sums(x, y)), u_statistic(x, y), **CLOSE
    )


def test_value_by_hand():
    # centred: x = (-1, 0, 1), y = (-1/3, 2/3, -1/3) and (-1, 0, 1)
    x = torch.tensor([[0.0], [1.0], [2.0]])
    y = torch.tensor([[0.0, 1.0], [1.0, 2.0], [0.0, 3.0]])
    # X^T Y = (0, 2), X^T X = 2, Y^T Y = diag(2/3, 2)
    expected = 4 / (2 * math.sqrt(4 / 9 + 4))
    assert linear_cka(x, y).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('cka', [linear_cka, unbiased_linear_cka])
def test_invariances(cka):
    x, y = random_features()
    value = cka(x, y)
    turn, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))
    torch.testing.assert_close(cka(x, -7.3 * y @ turn + 11), value, **CLOSE)
    torch.testing.assert_close(cka(y, x), value, **CLOSE)
    torch.testing.assert_close(
        cka(x, 0.2 * x + 1), torch.ones((), dtype=torch.float64), **CLOSE
    )
    # a stretch of one direction is no turn
    y[:, 0] *= 10
    assert abs(cka(x, y) - value) > 1e-2


def test_sums_of_batches_add_up():
    x, y = random_features()
    parts = [
        linear_sums(a, b) for a, b in zip(x.split(9), y.split(9), strict=True)
    ]
    total = add_sums(add_sums(parts[0], parts[1]), parts[2])
    for a, b in zip(total, linear_sums(x, y), strict=True):
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b))


def test_few_samples_of_many_channels():
    """Independent features: only the unbiased value is about 0."""
    x, y = torch.randn(50, 400), torch.randn(50, 400)
    assert linear_cka(x, y) > 0.8
    values = [
        unbiased_linear_cka(torch.randn(50, 400), torch.randn(50, 400))
        for _ in range(20)
    ]
    assert abs(sum(values) / 20) < 0.02


def test_constant_features_have_no_alignment():
    assert linear_cka(torch.ones(5, 2), torch.randn(5, 3)).isnan()
