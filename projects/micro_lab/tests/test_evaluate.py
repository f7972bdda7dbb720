from __future__ import annotations

import json
import sys
from functools import partial

import pytest
import torch

from kpu_mm.models.teachers import CLIPTeacher, GroundingDINOTeacher
from kpu_mm.structures import Features
from projects.micro_lab import evaluate
from projects.micro_lab.demo import CONFIG, save_untrained
from projects.micro_lab.evaluate import (
    KPU,
    TEACHERS,
    ZeroShotEvaluator,
    evaluate_zero_shot,
    student_backbone,
    student_encoders,
)
from projects.micro_lab.high_frequency import detail
from projects.micro_lab.micro_scores import (
    average_precision,
    features_of,
    find_digits,
    glyph_iou,
    joined_features,
    zero_shot_accuracy,
)
from projects.micro_lab.scaled_teacher import ScaledGroundingDINO


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


def test_maps_meet_on_one_grid():
    fine = torch.randn(2, 3, 16, 16)
    coarse = torch.randn(2, 4, 2, 2)
    encode = joined_features(lambda images: Features(None, (fine, coarse)))
    summary, joined = encode(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    torch.testing.assert_close(summary, coarse.mean((2, 3)))
    assert joined.shape == (2, 7, 8, 8)
    # four cells of the fine map make one
    by_hand = fine.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    torch.testing.assert_close(joined[:, :3], by_hand)
    # bilinear enlarging keeps the corners
    torch.testing.assert_close(joined[:, 3:, 0, 0], coarse[:, :, 0, 0])
    torch.testing.assert_close(joined[:, 3:, -1, -1], coarse[:, :, -1, -1])


def test_a_probe_finds_glyphs_where_features_show_them(scenes):
    ink = torch.nn.functional.avg_pool2d((scenes.instances > 0).float()[:, None], 8)

    def tell(images):
        assert len(images) == len(ink)  # all scenes pass at once
        return ink.mean((2, 3)), ink

    def guess(images):
        return torch.randn(len(images), 1), torch.randn(len(images), 1, 8, 8)

    assert glyph_iou(tell, scenes, scenes) > 0.9
    assert glyph_iou(guess, scenes, scenes) < 0.6


def test_scaled_maps_reach_the_detector_at_their_own_size(evaluator):
    source = str(TEACHERS / 'grounding_dino')
    scaled = evaluate._divided(ScaledGroundingDINO(source, 16).encode, 16)
    own = evaluator.precision(evaluator.encoders['grounding_dino'])
    assert evaluator.precision(scaled) == own


def test_an_untrained_adapter_is_a_matter_of_the_seed(scenes):
    images = scenes.images[:2].permute(0, 3, 1, 2)
    first, again, other = (student_backbone(KPU, None, seed)(images).maps[0] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_teachers_are_scored_at_the_size_of_their_stream(tmp_path):
    scores = evaluate_zero_shot(tmp_path, None, tmp_path, 40)
    assert scores['accuracy'] > 0.5 and scores['ap'] > 0.2
    assert {path.name for path in tmp_path.iterdir()} == {
        'digits-test-0-40-96',
        'digits-test-0-40-64',
    }


def test_scores_of_an_untrained_adapter_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, 'LABELS', (30, 60))
    line = ['evaluate', str(tmp_path / 'run'), str(KPU), '--untrained=3', '--count=50']
    monkeypatch.setattr(sys, 'argv', [*line, f'--pools={tmp_path / "pools"}'])
    evaluate.main()
    scores = json.loads((tmp_path / 'run' / 'scores.json').read_text())
    assert set(scores) == {'top1_30', 'miou_30', 'top1_60', 'miou_60'}
    assert all(0 < value < 1 for value in scores.values())
    assert scores['miou_60'] > 1 / 11
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--probe-steps=0'])
    evaluate.main()
    scores = json.loads((tmp_path / 'run' / 'scores.json').read_text())
    assert scores['miou_60'] < 1 / 11  # one class for all cells
