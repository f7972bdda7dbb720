"""The demo's run, cut short, with trained teachers, and its pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from kpu_mm.models.zero_shot import Boxes
from kpu_mm.visualization import loss_curves, read_log
from projects.micro_lab.demo import (
    CONFIG,
    collect_panels,
    draw_detections,
    draw_gap,
    save_untrained,
)
from projects.micro_lab.evaluate import TEACHERS, ZeroShotEvaluator, student_encoders
from projects.micro_lab.scene_pool import load_pool
from tests.runs import run_tool

ITERATIONS = 100
SCENES = 200
KEYS = ('loss', 's2t/clip', 't2s/clip', 'std_ratio', 'std_t2s_ratio')


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
def test_the_student_replaces_its_teachers(work_dir, pools):
    scenes = load_pool(pools, 'test', seed=9, count=SCENES)
    evaluator = ZeroShotEvaluator(TEACHERS, scenes)
    save_untrained(work_dir / 'untrained.pth')
    before = student_encoders(work_dir / 'untrained.pth', CONFIG)
    after = student_encoders(work_dir / f'iter_{ITERATIONS}.pth', CONFIG)
    # Chance is 0.1; the teachers reach 0.88 and 0.56.
    assert evaluator.accuracy(before['clip']) < 0.25
    assert evaluator.accuracy(after['clip']) > 0.60
    assert evaluator.precision(before['grounding_dino']) < 0.02
    assert evaluator.precision(after['grounding_dino']) > 0.08


def colours(path):
    """How many different colours a picture has."""
    pixels = np.asarray(Image.open(path).convert('RGB')).reshape(-1, 3)
    return len(np.unique(pixels, axis=0))


def test_curves_are_drawn(tmp_path):
    log = [
        {'step': step, **{key: i + 5 / step for i, key in enumerate(KEYS)}} for step in (10, 20, 30)
    ]
    draw_gap(log, tmp_path / 'gap.png')
    loss_curves(log).savefig(tmp_path / 'losses.png')
    assert all(colours(tmp_path / f'{name}.png') > 20 for name in ('gap', 'losses'))


def test_only_boxes_that_score_are_drawn(tmp_path):
    images = np.full((2, 64, 64, 3), 255, np.uint8)
    box = torch.tensor([[0.1, 0.1, 0.5, 0.5]])

    def draw(score):
        found = Boxes(box, torch.tensor([score]), torch.tensor([3]), 'abcdef')
        path = tmp_path / f'{score}.png'
        draw_detections(images, {'student': [found, found]}, path)
        return colours(path)

    assert draw(0.9) > draw(0.1)


def test_the_newest_panels_are_collected(tmp_path):
    # Step 10 is newer than 9, though not in the order of names.
    for run, step, level in (('1', 9, 10), ('1', 10, 20), ('2', 5, 30)):
        folder = tmp_path / run / 'vis_data' / 'vis_image'
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.new('L', (4, 4), level)
        image.save(folder / f'pca_clip_{step}.png')
        if run == '1':
            image.save(folder / f'pca_grounding_dino_{step}.png')
    found = {p.stem: Image.open(p) for p in collect_panels(tmp_path)}
    assert set(found) == {'pca_clip', 'pca_grounding_dino'}
    assert found['pca_clip'].getpixel((0, 0)) == 30
    assert found['pca_grounding_dino'].getpixel((0, 0)) == 20
