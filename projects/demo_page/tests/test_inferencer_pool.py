import pytest
import torch
from mmengine.config import Config
from torch import nn

from kpu_mm.apis import (
    FeatureInferencer,
    ZeroShotClassificationInferencer,
    ZeroShotDetectionInferencer,
    ZeroShotSegmentationInferencer,
)
from kpu_mm.export import write_student
from kpu_mm.models.student import read_student
from projects.demo_page.inferencer_pool import ENCODERS, InferencerPool, WeightPool, find_source


def test_teachers_of_each_task(pool):
    assert pool.teachers == dict(
        features=['clip', 'grounding_dino'],
        classes=['clip'],
        boxes=['grounding_dino'],
        heat=['clip'],
    )


def test_each_is_loaded_once_and_of_its_class(pool):
    pool.load()
    kinds = dict(
        features=FeatureInferencer,
        classes=ZeroShotClassificationInferencer,
        boxes=ZeroShotDetectionInferencer,
        heat=ZeroShotSegmentationInferencer,
    )
    for task, kind in kinds.items():
        for teacher in pool.teachers[task]:
            sides = [pool.get(task, teacher, side) for side in ENCODERS]
            assert all(type(side) is kind for side in sides)
            assert sides[0] is not sides[1]
            # A second call gives the same object.
            assert sides[0] is pool.get(task, teacher, 'student')


def test_weights_are_in_memory_once(pool):
    """Student, CLIP and GroundingDINO, each for up to four tasks."""
    pool.load()

    def large(model):
        """Sizes by address, of external modules too."""
        found = {}

        def note(weight):
            if weight.nbytes >= 1024:
                found[weight.data_ptr()] = weight.nbytes
            return weight

        model._apply(note)
        return found

    each = [large(inferencer.model) for inferencer in pool._loaded.values()]
    # These models together have all weights: projectors and text encoders.
    wholes = [
        pool.get('features', 'clip', 'student'),
        pool.get('features', 'grounding_dino', 'student'),
        pool.get('classes', 'clip', 'teacher'),
        pool.get('boxes', 'grounding_dino', 'teacher'),
    ]
    expected = {k: v for i in wholes for k, v in large(i.model).items()}
    together = {k: v for found in each for k, v in found.items()}
    assert together == expected
    apart = sum(sum(found.values()) for found in each)
    assert sum(together.values()) < apart / 3


def test_teachers_that_moved(student_dir, siglip_text_dir):
    pool = InferencerPool(student_dir, 'cpu', dict(clip=dict(model=f'local-dir:{siglip_text_dir}')))
    moved = pool.get('classes', 'clip', 'teacher').model.head
    assert moved.model.logit_bias is not None
    # The student's features need no teacher, moved or not.
    assert pool.get('features', 'clip', 'student').model.link is not None


def test_tasks_without_a_teacher(distilled, tmp_path):
    config, checkpoint, _ = distilled
    folder = write_student(read_student(config, checkpoint), tmp_path / 'student')
    pool = InferencerPool(folder, 'cpu')
    assert pool.teachers == dict(features=['teacher', 'other'], classes=[], boxes=[], heat=[])
    with pytest.raises(ValueError, match=r"no teacher 'clip'.*from \[\]"):
        pool.get('classes', 'clip', 'student')


def test_wrong_arguments(student_dir, tmp_path):
    with pytest.raises(ValueError, match=r"no teachers \['dino'\]; it has"):
        InferencerPool(student_dir, 'cpu', dict(dino=dict(source='x')))
    with pytest.raises(FileNotFoundError):
        InferencerPool(tmp_path / 'missing', 'cpu')


def test_equal_weights_become_one():
    first = nn.Linear(64, 64)
    second = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64))
    second[0].load_state_dict(first.state_dict())
    second[1].register_buffer('table', first.weight.detach().clone())
    third = nn.Linear(64, 64)
    with torch.no_grad():
        # The sum is equal, so that only a comparison of all values differs.
        third.weight.copy_(first.weight.flip(0))
    states = [{k: v.clone() for k, v in m.state_dict().items()} for m in (first, second, third)]
    pool = WeightPool()
    for model in (first, second, third):
        pool.share(model)
    for model, state in zip((first, second, third), states, strict=True):
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name])
    address = first.weight.data_ptr()
    assert second[0].weight.data_ptr() == address
    assert second[1].table.data_ptr() == address
    assert third.weight.data_ptr() != address


def test_small_weights_and_other_types_are_left_alone():
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.load_state_dict(first.state_dict())
    large, half = nn.Linear(64, 64), nn.Linear(64, 64).half()
    half.load_state_dict(large.half().state_dict())
    pool = WeightPool()
    for model in (first, second, large.float(), half):
        pool.share(model)
    assert first.weight.data_ptr() != second.weight.data_ptr()
    assert half.weight.dtype == torch.half and large.weight.is_floating_point()
    assert half.weight.data_ptr() != large.weight.data_ptr()


def test_students_and_configs(tmp_path):
    assert find_source(tmp_path) == str(tmp_path)
    assert find_source('run/iter_1.pth') == 'run/iter_1.pth'
    for name in ('imagenet', 'coco', 'ade20k'):
        named = find_source(f'zero_shot/{name}/kpu-vitb')
        assert named == 'work_dirs/kpu_vitb/iter_40000.pth'
    config = dict(model=dict(backbone=dict(source='mine')))
    assert find_source(Config(config)) == 'mine'


@pytest.mark.parametrize(
    'config', ['zero_shot/coco/grounding-dino-swinb', 'distill/kpu_vitb', dict(a=1)]
)
def test_configs_without_a_student(config):
    with pytest.raises(ValueError, match='names no student'):
        find_source(config)


def test_nothing_of_that_name():
    with pytest.raises(FileNotFoundError, match='nosuch'):
        find_source('nosuch')
