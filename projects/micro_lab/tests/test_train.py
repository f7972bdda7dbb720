"""The trainings, cut short, and the trained models in the repository."""

from __future__ import annotations

import hashlib
import json
import re
from functools import partial

import pytest

from kpu_mm.models.teachers import CLIPTeacher, DINOTeacher, GroundingDINOTeacher
from projects.micro_lab import train
from projects.micro_lab.evaluate import TEACHERS
from projects.micro_lab.micro_scores import (
    average_precision,
    features_of,
    find_digits,
    probe,
    zero_shot_accuracy,
)
from projects.micro_lab.scene_pool import load_pool
from projects.micro_lab.train import Laboratory, write_card

NAMES = sorted(path.name for path in TEACHERS.iterdir())
# scenes of no training, and how far their score may lie from the card's:
# two standard errors of a share of 0.8 are 0.06
SCENES = 200
TOLERANCE = 0.08


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    """A laboratory with plans of two steps."""
    plans = {
        name: plan._replace(images=2 * plan.batch_size, cycles=1)
        for name, plan in train.PLANS.items()
    }
    monkeypatch.setattr(train, 'PLANS', plans)
    for part in ('TRAIN', 'TEST', 'WATCHED', 'PROBE'):
        monkeypatch.setattr(train, f'{part}_SCENES', 60)
    return Laboratory(tmp_path)


@pytest.mark.slow
def test_every_model_is_trained_scored_and_loads(laboratory, tmp_path):
    for model in ('grounding_dino', 'clip', 'sentinel', 'general_sentinel'):
        getattr(laboratory, model)()
    scores = {
        path.parent.name: set(json.loads(path.read_text()))
        for path in tmp_path.glob('*/scores.json')
    }
    assert scores == {
        'backbone': {'cell_accuracy8', 'cell_accuracy16'},
        'grounding_dino': {'AP', 'AP50', 'AP75'},
        'clip': {'zero_shot_top1', 'zero_shot_top1_one_digit'},
        'sentinel': {'probe_top1', 'patch_miou'},
        'general_sentinel': {'probe_top1', 'patch_miou', 'iou_of_unseen_scripts'},
    }
    teachers = tmp_path / 'teachers'
    for folder in teachers.iterdir():
        assert 'sha256' in (folder / 'README.md').read_text()
    CLIPTeacher(f'local-dir:{teachers / "clip"}')
    DINOTeacher(str(teachers / 'sentinel'))


def test_card_names_the_weights(tmp_path):
    weights = tmp_path / 'model.safetensors'
    weights.write_bytes(b'weights')
    write_card(tmp_path, 'Name', 'Text.', {'seed': 3}, {'AP': 0.51239})
    card = (tmp_path / 'README.md').read_text()
    assert hashlib.sha256(b'weights').hexdigest() in card
    assert '| seed | 3 |' in card and '| AP | 0.512 |' in card


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pools')
    return load_pool(folder, 'test', seed=9, count=SCENES)


def card(name):
    text = (TEACHERS / name / 'README.md').read_text()
    return dict(re.findall(r'^\| (.+?) \| (.+?) \|$', text, re.M))


def score(name, pool, folder):
    place = str(TEACHERS / name)
    test = pool.take(slice(SCENES))
    if name == 'clip':
        teacher = CLIPTeacher(f'local-dir:{place}', with_text=True)
        encode, tokenizer = teacher.model.encode_text, teacher.tokenizer()
        return zero_shot_accuracy(features_of(teacher), encode, tokenizer, test)
    if name == 'grounding_dino':
        teacher = GroundingDINOTeacher(place, with_text=True)
        find = partial(find_digits, teacher.model)
        return average_precision(find, pool, SCENES)
    train = load_pool(folder, 'train', seed=9, count=4000)
    return probe(features_of(DINOTeacher(place)), train, test)


@pytest.mark.parametrize('name', NAMES)
def test_weights_are_those_of_the_card(name):
    (weights,) = (TEACHERS / name).glob('*.safetensors')
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert card(name)['sha256'] == f'`{digest}`'


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_scores_are_those_of_the_card(name, scenes, tmp_path):
    for key, value in score(name, scenes, tmp_path).items():
        assert value == pytest.approx(float(card(name)[key]), abs=TOLERANCE)
