import pytest
import torch
from mmengine.config import Config

from kpu_mm.apis.find_config import Places, find_config, find_student, is_student, zero_shot_config
from kpu_mm.models.teachers import CLIPTeacher, GroundingDINOTeacher
from tests.runs import ROOT

NAME = 'zero_shot/coco/kpu-vitb'
CLASSIFY = Places('zero_shot/imagenet/kpu-vitb', 'backbone', ('head', 'clip'), CLIPTeacher)
DETECT = Places('zero_shot/coco/kpu-vitb', 'encoder', ('teacher',), GroundingDINOTeacher)


def test_every_form_is_the_same_config():
    path = ROOT / 'configs' / f'{NAME}.py'
    config = Config.fromfile(path)
    for model in (NAME, path, str(path), config, config.to_dict()):
        assert find_config(model).to_dict() == config.to_dict()
        assert not is_student(model)


def test_the_caller_s_config_stays_as_it_is():
    config = Config(dict(model=dict(type='a')))
    for model in (config, config.to_dict()):
        find_config(model).model.type = 'b'
    assert config.model.type == 'a'


def test_names_that_are_none():
    with pytest.raises(FileNotFoundError, match=f"you mean .*'{NAME}'"):
        find_config('zero_shot/coco/kpu-vit')
    with pytest.raises(FileNotFoundError, match=r'package; see configs/\.'):
        find_config('_base_/default_runtime')
    with pytest.raises(FileNotFoundError, match=r"no config file 'a/b\.py'"):
        find_config('a/b.py')


def test_students(tmp_path):
    assert is_student(tmp_path) and is_student('work_dirs/iter_40000.pth')


@pytest.fixture(scope='module')
def checkpoint(zero_shot_run):
    return str(zero_shot_run / 'iter_1.pth')


def test_the_same_student_by_each_way(zero_shot_run, checkpoint, student_dir):
    projected = dict(type='kpu_mm.ProjectedBackbone', source='nowhere', teacher='clip')
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


def test_no_student(zero_shot_run, checkpoint, student_dir):
    with pytest.raises(ValueError, match='is a student already; remove wei'):
        find_student(student_dir, checkpoint)
    with pytest.raises(ValueError, match='pass the checkpoint as weights'):
        find_student(zero_shot_run / 'run.py')
    with pytest.raises(FileNotFoundError, match='does not exist: pass a che'):
        find_student('work_dirs/nowhere.pth')


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
    assert cfg.model.teacher.source == 'IDEA-Research/grounding-dino-base'


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
