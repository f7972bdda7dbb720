"""Crafted checkpoints through every tool that reads one."""

import os
import runpy
import shutil
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS

from kpu_mm.apis import FeatureInferencer
from kpu_mm.models import KPUBackbone
from kpu_mm.models.student import open_student, read_student
from kpu_mm.models.teachers import MMTeacher, TimmTeacher
from kpu_mm.models.zero_shot import ProjectedBackbone
from tests.runs import ROOT

RESNET = dict(
    backbone=dict(type='mmdet.ResNet', depth=18),
    data_preprocessor=dict(mean=[0.0] * 3, std=[1.0] * 3),
)

CONFIG = """
custom_imports = dict(imports=['kpu_mm'])
default_scope = 'mmpretrain'
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='mmpretrain.ResNet', depth=18),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead', num_classes=2, in_channels=512
    ),
)
loader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmpretrain.CustomDataset', data_prefix='{data}', pipeline=[]
    ),
)
train_dataloader = test_dataloader = loader
train_cfg = dict(by_epoch=False, max_iters=1)
test_cfg = dict()
test_evaluator = dict(type='mmpretrain.Accuracy')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
{runner}
"""


class Touch:
    """Pickles as a call that leaves a mark."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


class Chain:
    """Pickles as the chain of getattr by which MMEngine's list is left."""

    def __reduce__(self):
        return getattr, (torch.nn.Module, 'forward')


@pytest.fixture(params=['call', 'getattr'])
def evil(request, tmp_path):
    path = tmp_path / 'evil.pth'
    payload = Touch(tmp_path / 'mark') if request.param == 'call' else Chain()
    state = {'state_dict': {'backbone.a': torch.ones(1)}, 'evil': payload}
    torch.save(state, path)
    yield path
    assert not (tmp_path / 'mark').exists()


@pytest.mark.parametrize('tool', ['split_tasks.py', 'unic_to_timm.py'])
def test_converters(tool, evil, tmp_path, monkeypatch, capsys):
    path = str(ROOT / 'tools/model_converters' / tool)
    argv = [path, str(evil), str(tmp_path / 'out')]
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(path, run_name='__main__')
    assert end.value.code == 2
    assert 'could run code' in capsys.readouterr().err


def test_export_and_inferencers(evil, distilled, tmp_path):
    (tmp_path / 'config.py').write_text(f'model = {distilled[0]!r}\n')
    for read in (
        open_student,
        FeatureInferencer,
        lambda path: ProjectedBackbone(path, 'teacher'),
        lambda path: read_student(distilled[0], path),
    ):
        with pytest.raises(RuntimeError, match='could run code'):
            read(str(evil))


def test_backbones_and_teachers(evil, dinov2_dir, tmp_path):
    config = tmp_path / 'resnet.py'
    config.write_text(f'model = {RESNET!r}\n')
    for build in (
        lambda: TimmTeacher('resnet10t', checkpoint=str(evil)),
        lambda: MMTeacher(str(config), str(evil)),
        lambda: KPUBackbone(
            str(dinov2_dir),
            inplanes=8,
            num_interactions=2,
            init_cfg=dict(type='Pretrained', checkpoint=str(evil)),
        ).init_weights(),
    ):
        with pytest.raises(RuntimeError, match='could run code'):
            build()


def test_weights_of_a_sentinel(evil, dinov2_dir, tmp_path):
    folder = shutil.copytree(dinov2_dir, tmp_path / 'sentinel')
    (folder / 'model.safetensors').unlink()
    shutil.copy(evil, folder / 'pytorch_model.bin')
    with pytest.raises(RuntimeError, match=r'sentinel.* corrupt'):
        KPUBackbone(str(folder))


@pytest.mark.parametrize('option', ['load_from', 'resume'])
def test_runners_of_the_python_api(evil, tmp_path, option):
    text = CONFIG.format(data=tmp_path / 'data', runner='')
    for name in ('a', 'b'):
        (tmp_path / 'data' / name).mkdir(parents=True)
        (tmp_path / 'data' / name / 'x.jpg').touch()
    for number, kind in enumerate(('Runner', 'kpu_mm.KPURunner')):
        cfg = Config.fromstring(text, '.py')
        cfg.update(
            runner_type=kind,
            load_from=str(evil),
            resume=option == 'resume',
            work_dir=str(tmp_path / 'work'),
            experiment_name=f'{tmp_path.name}{number}',
        )
        with pytest.raises(RuntimeError, match='could run code'):
            RUNNERS.build(cfg).train()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('tool', 'runner'), [('train', "runner_type = 'kpu_mm.KPURunner'"), ('train', ''), ('test', '')]
)
def test_train_and_test(tool, runner, tmp_path):
    evil = tmp_path / 'evil.pth'
    torch.save(dict(state_dict={}, meta={}, evil=Chain()), evil)
    for name in ('a', 'b'):
        (tmp_path / 'data' / name).mkdir(parents=True)
        (tmp_path / 'data' / name / 'x.jpg').touch()
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(data=tmp_path / 'data', runner=runner))
    arguments = ['--resume', str(evil)] if tool == 'train' else [str(evil)]
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / f'tools/{tool}.py'),
            str(config),
            *arguments,
            '--work-dir',
            str(tmp_path / 'work'),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert 'could run code' in done.stderr.strip().splitlines()[-1]
