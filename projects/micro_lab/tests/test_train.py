from __future__ import annotations

import json

import pytest

from kpu_mm.models.teachers import CLIPTeacher, DINOTeacher
from projects.micro_lab import train
from projects.micro_lab.stage_loop import Plan
from projects.micro_lab.train import Laboratory


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    """A laboratory with plans of two steps."""
    plans = {
        name: Plan(
            2 * plan.batch_size,
            plan.batch_size,
            plan.lr,
            plan.weight_decay,
            plan.slow,
            plan.orthogonal,
        )
        for name, plan in train.PLANS.items()
    }
    monkeypatch.setattr(train, 'PLANS', plans)
    for part in ('TRAIN', 'TEST', 'WATCHED', 'PROBE'):
        monkeypatch.setattr(train, f'{part}_SCENES', 60)
    return Laboratory(tmp_path)


@pytest.mark.slow
def test_every_model_is_trained_scored_and_loads(laboratory, tmp_path):
    for model in ('grounding_dino', 'clip', 'sentinel'):
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
    }
    teachers = tmp_path / 'teachers'
    for folder in teachers.iterdir():
        assert 'sha256' in (folder / 'README.md').read_text()
    CLIPTeacher(f'local-dir:{teachers / "clip"}')
    DINOTeacher(str(teachers / 'sentinel'))
