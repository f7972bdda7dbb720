"""The demo's run, cut short, with trained teachers."""

from __future__ import annotations

import numpy as np
import pytest

from projects.micro_lab.demo import CONFIG, TEACHERS, read_log, save_untrained
from projects.micro_lab.scene_pool import load_pool
from projects.micro_lab.student_encoder import TeacherSides, student_encoders
from tests.runs import run_tool

ITERATIONS = 100
SCENES = 200


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo')
    done = run_tool(
        'train.py',
        CONFIG,
        '--work-dir',
        folder,
        '--cfg-options',
        f'train_cfg.max_iters={ITERATIONS}',
        f'param_scheduler.T_max={ITERATIONS}',
        f'default_hooks.checkpoint.interval={ITERATIONS}',
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_distillation_lowers_every_loss(work_dir):
    log = read_log(work_dir)
    assert log[-1]['step'] == ITERATIONS
    bounds = {
        's2t/clip': 0.42,
        't2s/clip': 0.75,
        'rec/clip': 0.20,
        's2t/grounding_dino': 0.20,
        't2s/grounding_dino': 0.25,
        'rec/grounding_dino': 0.12,
    }
    for key, bound in bounds.items():
        assert np.mean([row[key] for row in log[-3:]]) < bound < log[0][key]


@pytest.mark.slow
def test_the_student_stands_in_for_its_teachers(work_dir, pools):
    pool = load_pool(pools, 'test', seed=9, count=SCENES)
    sides = TeacherSides(TEACHERS, pool)
    save_untrained(work_dir / 'untrained.pth')
    before = student_encoders(work_dir / 'untrained.pth', CONFIG)
    after = student_encoders(work_dir / f'iter_{ITERATIONS}.pth', CONFIG)
    # chance is 0.1, the teachers reach 0.88 and 0.56
    assert sides.accuracy(before['clip']) < 0.25
    assert sides.accuracy(after['clip']) > 0.60
    assert sides.precision(before['grounding_dino']) < 0.02
    assert sides.precision(after['grounding_dino']) > 0.08
