from __future__ import annotations

import pytest

from kpu_mm.datasets import Permutation


@pytest.mark.parametrize('n', [1, 2, 3, 4, 5, 7, 64, 65, 1000, 4097, 30011])
def test_is_a_bijection(n):
    order = Permutation(n, 3, 0)
    assert sorted(order[i] for i in range(n)) == list(range(n))


def test_epochs_and_seeds_differ_and_repeat():
    orders = [
        [Permutation(500, seed, epoch)[i] for i in range(500)]
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (0, 0)]
    ]
    assert orders[0] == orders[3]
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        # Two random orders of n agree in about one place.
        same = sum(x == y for x, y in zip(orders[a], orders[b], strict=True))
        assert same < 12


def test_order_looks_random():
    n = 20000
    order = Permutation(n, 7)
    values = [order[i] for i in range(n)]
    mean = (n - 1) / 2
    variance = (n * n - 1) / 12
    for lag in (1, 2, 64):
        products = sum((a - mean) * (b - mean) for a, b in zip(values, values[lag:], strict=False))
        assert abs(products / (n - lag) / variance) < 0.03
    # The first tenth is spread over the whole range.
    counts = [0] * 10
    for value in values[: n // 10]:
        counts[value * 10 // n] += 1
    assert min(counts) > 150 and max(counts) < 250


def test_rejects_what_is_outside():
    with pytest.raises(IndexError):
        Permutation(5)[5]
    with pytest.raises(ValueError, match='length >= 1'):
        Permutation(0)
