"""A zero-shot Inferencer says what tools/test.py finds on a data set."""

import pickle
import runpy
import sys

import numpy as np
import pytest
from mmengine.config import Config

from kpu_mm.apis import (
    ZeroShotClassificationInferencer,
    ZeroShotDetectionInferencer,
    ZeroShotSegmentationInferencer,
)
from tests.fixtures_labeled import CLASSES
from tests.runs import ROOT

INFERENCERS = dict(
    imagenet=ZeroShotClassificationInferencer,
    coco=ZeroShotDetectionInferencer,
    ade20k=ZeroShotSegmentationInferencer,
)
ASK = dict(
    imagenet=dict(templates=['a {}.']),
    coco=dict(threshold=-1),
    ade20k=dict(templates=['a {}.'], score_maps='probability'),
)


@pytest.fixture
def tested(labeled, monkeypatch, tmp_path):
    """Predictions of tools/test.py with a config's model and pipeline."""

    def run(task, cfg):
        data = Config.fromfile(labeled / 'tasks.py')
        loader = data[f'{task}_val_dataloader']
        pipeline = cfg.test_dataloader.dataset.pipeline
        for step in pipeline:
            if 'reduce_zero_label' in step:
                step.reduce_zero_label = False
        cfg.test_dataloader = dict(loader, dataset=dict(loader.dataset, pipeline=pipeline))
        cfg.test_evaluator = data[f'{task}_val_evaluator']
        if task == 'coco':
            cfg.test_dataloader.dataset.return_classes = True
        else:
            head = 'head' if task == 'imagenet' else 'decode_head'
            cfg.model[head].update(classes=CLASSES, templates=['a {}.'], cache_dir=None)
        cfg.dump(tmp_path / 'config.py')
        tool, found = str(ROOT / 'tools/test.py'), tmp_path / 'found.pkl'
        command = [tool, tmp_path / 'config.py', 'none', '--out', found]
        command += ['--work-dir', tmp_path]
        monkeypatch.setattr(sys, 'argv', list(map(str, command)))
        runpy.run_path(tool, run_name='__main__')
        return pickle.loads(found.read_bytes())

    return run


@pytest.mark.slow
@pytest.mark.parametrize('encoder', ['student', 'teacher'])
@pytest.mark.parametrize('task', INFERENCERS)
def test_results_are_those_of_tools_test(task, encoder, student_dir, tested):
    infer = INFERENCERS[task](student_dir, device='cpu', encoder=encoder)
    samples = tested(task, infer.cfg.copy())
    assert len(samples) == 3
    for theirs in samples:
        (ours,) = infer(theirs['img_path'], classes=list(CLASSES), **ASK[task])['predictions']
        if task == 'imagenet':
            scores = theirs['pred_score'].sort(descending=True).values
            assert ours['scores'] == pytest.approx(scores.tolist(), rel=1e-4)
        elif task == 'coco':
            scores = theirs['pred_instances']['scores'].tolist()
            assert ours['scores'] == pytest.approx(scores, abs=1e-5)
        else:
            scores = theirs['seg_logits']['data'].softmax(0).numpy()
            np.testing.assert_allclose(ours['scores'], scores, atol=1e-5)
            labels = theirs['pred_sem_seg']['data'][0].numpy()
            assert (ours['sem_seg'] == labels).mean() > 0.999


def test_config_and_weights_equal_the_student_alone(student_dir, pictures):
    """A config whose places are filled by hand."""
    alone = ZeroShotDetectionInferencer(student_dir, device='cpu')
    placed = ZeroShotDetectionInferencer(
        'zero_shot/coco/kpu-vitb',
        weights=str(student_dir),
        device='cpu',
        teacher_cfg=dict(source=str(alone.model.decoder.teacher.folder)),
    )
    ask = dict(classes=['cat', 'dog'], threshold=-1)
    path = pictures / 'a.png'
    # the config's own; what the small teacher's processor says
    assert placed.pipeline.transforms[0].scale == (800, 1333)
    assert alone.pipeline.transforms[0].scale == (96, 160)
    placed.pipeline = alone.pipeline
    assert placed(path, **ask) == alone(path, **ask)


def test_teacher_row_of_a_config(student_dir, pictures, clip_dir):
    """By a teacher's config, and by the student's with its teacher."""
    clip = dict(model=f'local-dir:{clip_dir}', pretrained=None)
    row, replaced = (
        ZeroShotClassificationInferencer(
            f'zero_shot/imagenet/{name}', device='cpu', teacher_cfg=clip, encoder='teacher'
        )
        for name in ('clip-vitb', 'kpu-vitb')
    )
    ask = dict(classes=['cat', 'dog'], templates=['{}'])
    found = row(pictures, **ask)
    assert found == replaced(pictures, **ask)
    assert len(found['predictions']) == 3


@pytest.mark.parametrize('task', INFERENCERS)
def test_extreme_shapes_work_or_are_named(task, student_dir):
    infer = INFERENCERS[task](student_dir, device='cpu', show_progress=False)
    ask = dict(ASK[task], classes=list(CLASSES), return_vis=True)
    for shape in ((1, 1), (1, 90)):
        try:
            (picture,) = infer(np.zeros((*shape, 3), np.uint8), **ask)['visualization']
            assert picture.shape == (*shape, 3)
        except ValueError as error:
            height, width = shape
            assert f"'image_000000' is {width} x {height} pixels, which cannot be used" in str(
                error
            )
            assert 'images of' in str(error) and task != 'imagenet'
