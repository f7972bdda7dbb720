import pytest
import torch

from kpu_mm.models.teachers import GroundingDINOTeacher
from projects.micro_lab.evaluate import TEACHERS
from projects.micro_lab.micro_scores import find_digits
from projects.micro_lab.scaled_teacher import ScaledGroundingDINO

SOURCE = str(TEACHERS / 'grounding_dino')


@pytest.mark.parametrize(('scale', 'close'), [(16, dict(rtol=0, atol=0)), (18, {})])
def test_the_detector_is_the_same_function(scenes, scale, close):
    own = GroundingDINOTeacher(SOURCE, with_text=True)
    scaled = ScaledGroundingDINO(SOURCE, scale, with_text=True)
    images = scenes.images[:4]
    with torch.no_grad():
        wanted, found = (find_digits(teacher.model, images) for teacher in (own, scaled))
        raw = images.permute(0, 3, 1, 2)
        for a, b in zip(own.encode(raw).maps, scaled.encode(raw).maps, strict=True):
            torch.testing.assert_close(b, a * scale, rtol=0, atol=0)
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(b.scores, a.scores, **close)
        torch.testing.assert_close(b.boxes, a.boxes, **close)


def test_a_part_without_the_detector(scenes):
    raw = scenes.images[:2].permute(0, 3, 1, 2)
    own, scaled = GroundingDINOTeacher(SOURCE), ScaledGroundingDINO(SOURCE, 18)
    for a, b in zip(own.encode(raw).maps, scaled.encode(raw).maps, strict=True):
        torch.testing.assert_close(b, a * 18, rtol=0, atol=0)
