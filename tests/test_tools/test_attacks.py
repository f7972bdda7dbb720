"""Crafted checkpoints through every tool that reads one."""

import os
import runpy
import subprocess
import sys

import pytest
import torch

from kpu_mm.models.teachers import TimmTeacher
from tests.runs import ROOT

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


def test_timm_teacher(evil):
    with pytest.raises(RuntimeError, match='could run code'):
        TimmTeacher('resnet10t', checkpoint=str(evil))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('tool', 'runner'),
    [
        ('train', "runner_type = 'kpu_mm.KPURunner'"),
        ('train', ''),
        ('test', ''),
    ],
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
