from __future__ import annotations

from functools import partial

import pytest
import torch

from kpu_mm.models.teachers import CLIPTeacher, GroundingDINOTeacher
from projects.micro_lab.demo import CONFIG, TEACHERS, save_untrained
from projects.micro_lab.digit_prompt import find_digits
from projects.micro_lab.micro_scores import average_precision, look, zero_shot
from projects.micro_lab.student_encoder import TeacherSides, student_encoders


@pytest.fixture(scope='module')
def sides(pool):
    return TeacherSides(TEACHERS, pool)


def test_teachers_score_as_without_the_student_s_way(sides, pool, batch):
    clip = CLIPTeacher(f'local-dir:{TEACHERS / "clip"}', with_text=True)
    expected = zero_shot(
        look(clip), clip.model.encode_text, clip.tokenizer(), batch
    )
    found = sides.accuracy(sides.encoders['clip'])
    assert found == expected['zero_shot_top1'] > 0.4
    detector = GroundingDINOTeacher(
        str(TEACHERS / 'grounding_dino'), with_text=True
    )
    expected = average_precision(
        partial(find_digits, detector.model), pool, len(pool.images)
    )
    found = sides.precision(sides.encoders['grounding_dino'])
    assert found == pytest.approx(expected['AP'], abs=1e-6)
    assert found > 0.4


def test_an_untrained_student_knows_nothing(sides, batch, tmp_path):
    save_untrained(tmp_path / 'untrained.pth')
    encoders = student_encoders(tmp_path / 'untrained.pth', CONFIG)
    images = batch.images.permute(0, 3, 1, 2)
    for name, own in sides.encoders.items():
        with torch.no_grad():
            found, expected = encoders[name](images), own(images)
        shapes = [[m.shape for m in f.maps] for f in (found, expected)]
        assert shapes[0] == shapes[1]
    assert sides.accuracy(encoders['clip']) < 0.35
    assert sides.precision(encoders['grounding_dino']) < 0.05
