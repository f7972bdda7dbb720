"""The trained models in the repository are what their cards say."""

from __future__ import annotations

import hashlib
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from kpu_mm.models.teachers import (
    CLIPTeacher,
    DINOTeacher,
    GroundingDINOTeacher,
)
from projects.micro_lab.digit_prompt import find_digits
from projects.micro_lab.micro_scores import (
    average_precision,
    look,
    probe,
    zero_shot,
)
from projects.micro_lab.scene_pool import load_pool

FOLDER = Path(__file__).parents[1] / 'teachers'
NAMES = sorted(path.name for path in FOLDER.iterdir())
# scenes of no training, and how far their score may lie from the card's:
# two standard errors of a share of 0.8 are 0.06
SCENES = 200
TOLERANCE = 0.08


@pytest.fixture(scope='module')
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pools')
    return load_pool(folder, 'test', seed=9, count=SCENES)


def card(name):
    text = (FOLDER / name / 'README.md').read_text()
    return dict(re.findall(r'^\| (.+?) \| (.+?) \|$', text, re.M))


def score(name, pool, folder):
    place = str(FOLDER / name)
    test = pool.batch(np.arange(SCENES))
    if name == 'clip':
        teacher = CLIPTeacher(f'local-dir:{place}', with_text=True)
        encode, tokenizer = teacher.model.encode_text, teacher.tokenizer()
        return zero_shot(look(teacher), encode, tokenizer, test)
    if name == 'grounding_dino':
        teacher = GroundingDINOTeacher(place, with_text=True)
        find = partial(find_digits, teacher.model)
        return average_precision(find, pool, SCENES)
    train = load_pool(folder, 'train', seed=9, count=4000)
    seen = train.batch(np.arange(4000))
    return probe(look(DINOTeacher(place)), seen, test)


@pytest.mark.parametrize('name', NAMES)
def test_weights_are_those_of_the_card(name):
    (weights,) = (FOLDER / name).glob('*.safetensors')
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert card(name)['sha256'] == f'`{digest}`'


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_scores_are_those_of_the_card(name, pool, tmp_path):
    for key, value in score(name, pool, tmp_path).items():
        assert value == pytest.approx(float(card(name)[key]), abs=TOLERANCE)
