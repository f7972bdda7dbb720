import pytest
from mmengine.config import Config

from projects.demo_page import find_source


def test_students_and_configs(tmp_path):
    assert find_source(tmp_path) == str(tmp_path)
    assert find_source('run/iter_1.pth') == 'run/iter_1.pth'
    for name in ('imagenet', 'coco', 'ade20k'):
        named = find_source(f'zero_shot/{name}/kpu-vitb')
        assert named == 'work_dirs/kpu_vitb/iter_40000.pth'
    config = dict(model=dict(backbone=dict(source='mine')))
    assert find_source(Config(config)) == 'mine'


@pytest.mark.parametrize(
    'config',
    ['zero_shot/coco/grounding-dino-swint', 'distill/kpu_vitb', dict(a=1)],
)
def test_configs_without_a_student(config):
    with pytest.raises(ValueError, match='names no student'):
        find_source(config)


def test_nothing_of_that_name():
    with pytest.raises(FileNotFoundError, match='nosuch'):
        find_source('nosuch')
