from __future__ import annotations

from functools import partial

import pytest
import torch

from kpu_mm.models.teachers import CLIPTeacher, GroundingDINOTeacher
from projects.micro_lab.demo import CONFIG, save_untrained
from projects.micro_lab.evaluate import TEACHERS, ZeroShotEvaluator, student_encoders
from projects.micro_lab.high_frequency import detail
from projects.micro_lab.micro_scores import (
    average_precision,
    features_of,
    find_digits,
    zero_shot_accuracy,
)


@pytest.fixture(scope='module')
def evaluator(scenes):
    return ZeroShotEvaluator(TEACHERS, scenes)


def test_teachers_score_as_whole_models(evaluator, scenes):
    clip = CLIPTeacher(f'local-dir:{TEACHERS / "clip"}', with_text=True)
    expected = zero_shot_accuracy(
        features_of(clip), clip.model.encode_text, clip.tokenizer(), scenes
    )
    # The lower bound excludes chance, which is 0.1.
    found = evaluator.accuracy(evaluator.encoders['clip'])
    assert found == expected['zero_shot_top1'] > 0.4
    detector = GroundingDINOTeacher(str(TEACHERS / 'grounding_dino'), with_text=True)
    expected = average_precision(partial(find_digits, detector.model), scenes, len(scenes.images))
    found = evaluator.precision(evaluator.encoders['grounding_dino'])
    assert found == pytest.approx(expected['AP'], abs=1e-6)
    assert found > 0.4


def test_an_untrained_student_scores_low(evaluator, scenes, tmp_path):
    save_untrained(tmp_path / 'untrained.pth')
    encoders = student_encoders(tmp_path / 'untrained.pth', CONFIG)
    images = scenes.images.permute(0, 3, 1, 2)
    for name, own in evaluator.encoders.items():
        with torch.no_grad():
            found, expected = encoders[name](images), own(images)
        shapes = [[m.shape for m in f.maps] for f in (found, expected)]
        assert shapes[0] == shapes[1]
    assert evaluator.accuracy(encoders['clip']) < 0.35
    assert evaluator.precision(encoders['grounding_dino']) < 0.05


def test_alternating_cells_are_all_detail():
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    maps = board.float().expand(2, 3, 8, 8)
    assert detail(maps) == pytest.approx(1.0)


def test_a_slope_has_little_detail():
    """A plane is lost at the rim alone, where enlarging cannot follow."""
    slope = torch.arange(32.0).expand(1, 1, 32, 32)
    # A cell at each end of a row is off by half a cell.
    expected = 2 * 0.5**2 / ((torch.arange(32.0) - 15.5) ** 2).sum()
    assert detail(slope) == pytest.approx(float(expected), rel=1e-4)


def test_detail_ignores_scale_and_offset():
    maps = torch.randn(2, 3, 8, 8)
    assert detail(5 * maps + 3) == pytest.approx(detail(maps), rel=1e-4)
