"""Pools of digit scenes."""

from __future__ import annotations

import pytest


@pytest.fixture(scope='session')
def pools(tmp_path_factory):
    """Where pools of scenes are kept."""
    return tmp_path_factory.mktemp('pools')


@pytest.fixture(scope='session')
def pool(pools):
    """24 scenes of the test split."""
    from projects.micro_lab.scene_pool import load_pool

    return load_pool(pools, 'test', seed=4, count=24)


@pytest.fixture(scope='session')
def batch(pool):
    """All of them as tensors."""
    import numpy as np

    return pool.batch(np.arange(24))
