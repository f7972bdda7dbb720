from __future__ import annotations

import random

import numpy as np
import torch

from kpu_mm.datasets import seeded


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_same_seed_same_numbers_and_nothing_leaks():
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    first, second = draw(), draw()
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    assert draw() == first
    with seeded(2**62 + 5):
        inside = draw()
        with seeded(9):
            nested = draw()
        rest = draw()
    assert draw() == second
    with seeded(2**62 + 5):
        assert draw() == inside
        assert draw() == rest
    with seeded(9):
        assert draw() == nested
    assert len({*inside, *rest, *nested}) == 9


def test_restores_after_an_error():
    np.random.seed(2)
    expected = np.random.rand(2)
    np.random.seed(2)
    np.random.rand()
    try:
        with seeded(1):
            raise KeyError
    except KeyError:
        pass
    assert np.random.rand() == expected[1]
