import pytest
from mmengine.config import Config

from kpu_mm.apis.find_config import find_config, is_student
from tests.runs import ROOT

NAME = 'zero_shot/coco/kpu-vitb'


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
