import pytest
from mmengine.config import Config

from kpu_mm.apis.zero_shot_config import Places, zero_shot_config

CLASSIFY = Places(
    'zero_shot/imagenet/kpu-vitb', 'backbone', ('head', 'clip'), 'CLIPTeacher'
)
DETECT = Places(
    'zero_shot/coco/kpu-vitb', 'encoder', ('teacher',), 'GroundingDINOTeacher'
)


def test_around_a_student(student_dir, zero_shot_run, clip_dir):
    run = zero_shot_run / 'iter_1.pth'
    for source in (student_dir, run):
        cfg = zero_shot_config(CLASSIFY, source)
        assert cfg.model.head.clip == dict(model=f'local-dir:{clip_dir}')
        assert cfg.model.backbone.source == str(source)
        assert cfg.model.backbone.teacher == 'clip'
        assert cfg.model.backbone.out_type == 'summary'


def test_teacher_that_moved(student_dir):
    cfg = zero_shot_config(DETECT, student_dir, teacher_cfg=dict(source='x'))
    assert cfg.model.teacher == dict(source='x')
    assert cfg.model.encoder.teacher == 'grounding_dino'


def test_config_with_another_student():
    cfg = zero_shot_config(DETECT, DETECT.default)
    assert cfg.model.encoder.source.startswith('work_dirs')
    cfg = zero_shot_config(DETECT, DETECT.default, 'other.pth', 'second')
    assert cfg.model.encoder.source == 'other.pth'
    assert cfg.model.encoder.teacher == 'second'
    assert cfg.model.teacher.source == 'IDEA-Research/grounding-dino-tiny'


def test_config_of_another_run_is_forgotten():
    cfg = zero_shot_config(DETECT, DETECT.default)
    cfg.model.encoder.config = 'run.py'
    assert 'config' in zero_shot_config(DETECT, cfg).model.encoder
    assert 'config' not in zero_shot_config(DETECT, cfg, 'x').model.encoder


def test_several_teachers_of_a_kind(tmp_path):
    clip = dict(type='kpu_mm.CLIPTeacher', model='x')
    teachers = dict(one=clip, two=dict(clip, model='y'))
    Config(dict(model=dict(teachers=teachers))).dump(tmp_path / 'run.py')
    (tmp_path / 'iter_1.pth').touch()
    with pytest.raises(ValueError, match=r"\['one', 'two'\].*name one"):
        zero_shot_config(CLASSIFY, tmp_path / 'iter_1.pth')
    cfg = zero_shot_config(CLASSIFY, tmp_path / 'iter_1.pth', teacher='two')
    assert cfg.model.backbone.teacher == 'two'
    assert cfg.model.head.clip.model == 'y'
    with pytest.raises(ValueError, match='this task needs one'):
        zero_shot_config(DETECT, tmp_path / 'iter_1.pth')


def test_what_contradicts(student_dir):
    with pytest.raises(ValueError, match='is a student already'):
        zero_shot_config(DETECT, student_dir, 'other.pth')
    with pytest.raises(ValueError, match=r'name one of these'):
        zero_shot_config(DETECT, student_dir, teacher='clip')
    with pytest.raises(ValueError, match=r"model has no teacher; see 'zero_s"):
        zero_shot_config(DETECT, CLASSIFY.default)
    with pytest.raises(ValueError, match=r'model has no head\.clip'):
        zero_shot_config(CLASSIFY, DETECT.default)
    for other in (dict(weights='x.pth'), dict(teacher='clip')):
        with pytest.raises(ValueError, match='has no student, only a teach'):
            zero_shot_config(CLASSIFY, 'zero_shot/imagenet/clip-vitb', **other)
