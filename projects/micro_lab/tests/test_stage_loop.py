from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from projects.micro_lab import stage_loop
from projects.micro_lab.stage_loop import Plan, train_stage


def learn(folder, stop_at=None, images=96):
    """Train a linear map on numbers in place of scenes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    seen = []

    def step(indices):
        if len(seen) == stop_at:
            raise KeyboardInterrupt
        seen.append(indices)
        x = torch.from_numpy(indices)[:, None] / torch.tensor([3.0, 5.0, 7.0])
        return {'error': (model(x) - x.sum(1, keepdim=True)).square().mean()}

    def evaluate():
        return {'weight': model[0].weight.sum().item()}

    plan = Plan(images, 8, 1e-2, orthogonal=('0.',), evaluate_every=32)
    scores = train_stage(folder, model, plan, 20, 7, step, evaluate)
    return model, scores, seen


def test_a_killed_run_ends_as_a_whole_one(tmp_path, monkeypatch):
    # Save after every step.
    monkeypatch.setattr(stage_loop, '_CHECKPOINT_SECONDS', 0.0)
    whole, scores, batches = learn(tmp_path / 'whole')
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / 'killed', stop_at=5)
    resumed, resumed_scores, rest = learn(tmp_path / 'killed')
    assert len(batches) == 12 and len(rest) == 7
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert scores == resumed_scores
    # A finished stage is not trained again.
    assert learn(tmp_path / 'killed')[1:] == (scores, [])
    lines = (tmp_path / 'whole' / 'log.jsonl').read_text().splitlines()
    assert [json.loads(line)['images'] for line in lines] == [32, 64, 96]


def test_each_epoch_shows_every_scene_once(tmp_path):
    _, _, batches = learn(tmp_path / 'run', images=80)
    flat = np.concatenate(batches)
    # 80 images are four epochs of 20 scenes.
    assert (np.bincount(flat, minlength=20) == 4).all()


def test_schedule_by_hand():
    rates = [stage_loop._schedule(number, 1000) for number in range(1001)]
    # 100 steps of warm-up; the last 35 % decay by a cosine.
    assert rates[0] == 0.01 and rates[99] == rates[650] == 1
    assert rates[825] == pytest.approx(0.5) and rates[1000] == 0
