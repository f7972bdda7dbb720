import pytest
from mmengine.registry import DefaultScope

pytest_plugins = [
    'tests.fixtures_teachers',
    'tests.runs',
    'tests.fixtures_distilled',
    'tests.fixtures_zero_shot',
    'tests.fixtures_labeled',
    'tests.fixtures_inference',
]


@pytest.fixture(autouse=True)
def default_scopes():
    """What a runner sets as default scope ends with its test."""
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)
