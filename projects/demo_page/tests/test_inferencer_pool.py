import pytest

from kpu_mm.apis import (
    FeatureInferencer,
    ZeroShotClassificationInferencer,
    ZeroShotDetectionInferencer,
    ZeroShotSegmentationInferencer,
)
from kpu_mm.export import write_student
from kpu_mm.models.student import read_student
from projects.demo_page import InferencerPool
from projects.demo_page.inferencer_pool import ENCODERS


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
            assert sides[0] is pool.get(task, teacher, 'student')


def test_weights_are_in_memory_once(pool):
    """Student, CLIP and GroundingDINO, each for up to four tasks."""
    pool.load()

    def large(model):
        """Sizes by address, of parts that checkpoints do not see too."""
        found = {}

        def look(weight):
            if weight.nbytes >= 1024:
                found[weight.data_ptr()] = weight.nbytes
            return weight

        model._apply(look)
        return found

    each = [large(inferencer.model) for inferencer in pool._loaded.values()]
    # what has all there is: the student's projectors, and teachers with text
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
    pool = InferencerPool(
        student_dir,
        'cpu',
        dict(clip=dict(model=f'local-dir:{siglip_text_dir}')),
    )
    moved = pool.get('classes', 'clip', 'teacher').model.head.bank
    assert moved.model.logit_bias is not None
    # the projector needs no teacher
    assert pool.get('features', 'clip', 'student').model.head is not None


def test_tasks_without_a_teacher(distilled, tmp_path):
    config, checkpoint, _ = distilled
    folder = write_student(
        read_student(config, checkpoint), tmp_path / 'student'
    )
    pool = InferencerPool(folder, 'cpu')
    assert pool.teachers == dict(
        features=['teacher', 'other'], classes=[], boxes=[], heat=[]
    )
    with pytest.raises(ValueError, match=r"no teacher 'clip'.*from \[\]"):
        pool.get('classes', 'clip', 'student')


def test_wrong_arguments(student_dir, tmp_path):
    with pytest.raises(ValueError, match=r"no teachers \['dino'\]; it has"):
        InferencerPool(student_dir, 'cpu', dict(dino=dict(source='x')))
    with pytest.raises(FileNotFoundError):
        InferencerPool(tmp_path / 'missing', 'cpu')
