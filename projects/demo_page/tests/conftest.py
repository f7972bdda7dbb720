"""The parts of a student's page, without its server."""

import pytest

from projects.demo_page.answers import Answers
from projects.demo_page.comparison import Comparison
from projects.demo_page.inferencer_pool import InferencerPool
from projects.demo_page.uploads import UploadFolder

MAX_BYTES = 2**20
MAX_PIXELS = 100_000
# For each task a teacher and the values of the other inputs.
INPUTS = dict(
    features=('clip',),
    classes=('clip', 'cat, dog'),
    boxes=('grounding_dino', 'a cat.', 0.25),
    heat=('clip', 'cat'),
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch, uploads):
    """Text embeddings are written below the working directory."""
    monkeypatch.chdir(tmp_path)
    # build_page changes it
    monkeypatch.setenv('GRADIO_TEMP_DIR', str(uploads.folder))


@pytest.fixture(scope='session')
def pool(student_dir):
    return InferencerPool(student_dir, 'cpu')


@pytest.fixture(scope='session')
def uploads(tmp_path_factory):
    return UploadFolder(MAX_BYTES, str(tmp_path_factory.mktemp('uploads')))


@pytest.fixture(scope='session')
def answers(pool, uploads):
    return Answers(Comparison(pool), MAX_PIXELS, uploads)


@pytest.fixture(scope='session')
def uploaded(uploads, pictures):
    """Path of a picture that was uploaded."""
    path = pictures / 'a.png'
    return str(uploads.store(path.name, path.read_bytes()))
