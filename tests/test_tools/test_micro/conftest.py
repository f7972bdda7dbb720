"""The scripts of tools/micro import each other as neighbours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / 'tools' / 'micro'))


@pytest.fixture(scope='session')
def pools(tmp_path_factory):
    """Where pools of scenes are kept."""
    return tmp_path_factory.mktemp('pools')


@pytest.fixture(scope='session')
def pool(pools):
    """24 scenes of the test split."""
    from scene_pool import load_pool

    return load_pool(pools, 'test', seed=4, count=24)


@pytest.fixture(scope='session')
def batch(pool):
    """All of them as tensors."""
    import numpy as np

    return pool.batch(np.arange(24))
