"""Random transforms as a pure function of a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# Generators out of use; their state is of no consequence.
_spares: list[np.random.MT19937] = []


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
    states = random.getstate(), generator.get_state()
    # Exchanging NumPy's generator is a hundred times as fast as copying
    # its state or making a new one.
    numpy_generator = np.random.get_bit_generator()  # type: ignore[attr-defined]
    spare = _spares.pop() if _spares else np.random.MT19937(0)
    np.random.set_bit_generator(spare)  # type: ignore[attr-defined]
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_bit_generator(numpy_generator)  # type: ignore[attr-defined]
        _spares.append(spare)
        generator.set_state(states[1])
