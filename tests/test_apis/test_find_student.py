import pytest
import torch
from mmengine.config import Config

from kpu_mm.apis.find_student import find_student


@pytest.fixture(scope='module')
def checkpoint(zero_shot_run):
    return str(zero_shot_run / 'iter_1.pth')


def test_the_same_student_by_each_way(zero_shot_run, checkpoint, student_dir):
    projected = dict(
        type='kpu_mm.ProjectedBackbone', source='nowhere', teacher='clip'
    )
    zero_shot = dict(model=dict(backbone=projected))
    named = dict(model=dict(encoder=dict(projected, source=checkpoint)))
    run = Config.fromfile(zero_shot_run / 'run.py')
    x = torch.rand(1, 3, 64, 64)
    features = [
        find_student(*given).backbone(x)
        for given in (
            (student_dir,),
            (checkpoint,),
            (run, checkpoint),
            (zero_shot, checkpoint),
            (zero_shot, student_dir),
            (named,),
        )
    ]
    for other in features[1:]:
        for a, b in zip(features[0], other, strict=True):
            assert torch.equal(a, b)


def test_clear_messages(zero_shot_run, checkpoint, student_dir):
    with pytest.raises(ValueError, match='is a student already; remove wei'):
        find_student(student_dir, checkpoint)
    with pytest.raises(ValueError, match='pass the checkpoint as weights'):
        find_student(zero_shot_run / 'run.py')
    with pytest.raises(FileNotFoundError, match='does not exist: pass a che'):
        find_student('work_dirs/nowhere.pth')
