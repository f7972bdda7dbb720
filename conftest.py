import pytest
from mmengine.logging import MMLogger
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
def managed_instances():
    """A runner's default scope and logger, whose file is closed, end with its test."""
    kinds = (DefaultScope, MMLogger)
    before = [dict(kind._instance_dict) for kind in kinds]
    yield
    for kind, instances in zip(kinds, before, strict=True):
        kind._instance_dict.clear()
        kind._instance_dict.update(instances)
