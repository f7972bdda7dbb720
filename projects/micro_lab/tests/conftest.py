"""Digit scenes for the tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope='session')
def pools(tmp_path_factory):
    """Folder of the pools of scenes."""
    return tmp_path_factory.mktemp('pools')


@pytest.fixture(scope='session')
def scenes(pools):
    """24 scenes of the test split."""
    from projects.micro_lab.scene_pool import load_pool

    return load_pool(pools, 'test', seed=4, count=24)
