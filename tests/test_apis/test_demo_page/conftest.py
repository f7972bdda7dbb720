"""A student's page, without its server."""

import pytest

from kpu_mm.apis.demo_page import Answers, Comparison, InferencerPool

MAX_PIXELS = 100_000


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Text embeddings are kept below the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope='session')
def pool(student_dir):
    return InferencerPool(student_dir, 'cpu')


@pytest.fixture(scope='session')
def answers(pool):
    return Answers(Comparison(pool), MAX_PIXELS)
