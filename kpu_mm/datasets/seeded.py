"""Random transforms as a pure function of a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators inside, leave them untouched outside.

    Python's, numpy's and torch's CPU generators are covered: the ones that
    transforms of OpenMMLab and torchvision draw from.

    Args:
        seed: Any number in [0, 2**63).
    """
    # torch.manual_seed would also reseed CUDA, or format a stack trace for
    # each sample as long as CUDA is not initialised.
    generator = torch.default_generator
    states = random.getstate(), np.random.get_state(), generator.get_state()
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        generator.set_state(states[2])
