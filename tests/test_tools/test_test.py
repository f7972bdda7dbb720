"""tools/test.py, in a process of its own once and else in this one."""

import pickle
import runpy
import shutil
import sys
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from PIL import Image
from torch import nn

from kpu_mm.registry import MODELS
from tests.runs import ROOT, metrics_of, run_tool

TASKS = ('coco', 'ade20k', 'imagenet')


DATASET = 'test_dataloader.dataset'


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """As in the other process: sums depend on how they are shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def checkpoint(labeled, tmp_path_factory):
    """Of the joint run, at random weights."""
    config = Config.fromfile(labeled / 'joint.py')
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    for name, p in model.named_parameters():
        if 'sentinel' not in name:
            p.data += 0.05 * torch.randn_like(p)
    path = tmp_path_factory.mktemp('joint') / 'iter_4.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


@pytest.fixture
def run(monkeypatch):
    """The tool in this process."""
    tool = str(ROOT / 'tools' / 'test.py')

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        runpy.run_path(tool, run_name='__main__')

    return call


@pytest.fixture(scope='module')
def joint_test(labeled, checkpoint, tmp_path_factory):
    """Work directory of a test of all tasks, with their predictions."""
    folder = tmp_path_factory.mktemp('test')
    result = run_tool(
        'test.py',
        labeled / 'joint.py',
        checkpoint,
        '--work-dir',
        folder,
        '--out',
        folder / 'found.pkl',
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def predictions(path):
    with path.open('rb') as file:
        return pickle.load(file)


def tensors(value):
    """All tensors in nested containers, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors(item)]
    return []


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_a_single_config_finds_what_the_joint_run_finds(
    task, labeled, checkpoint, joint_test, run, tmp_path
):
    run(
        labeled / f'{task}.py',
        checkpoint,
        '--work-dir',
        tmp_path,
        '--out',
        tmp_path / 'found.pkl',
        '--show-dir',
        tmp_path / 'pictures',
    )
    metrics = metrics_of(tmp_path)
    joint = metrics_of(joint_test)
    assert metrics
    assert metrics == pytest.approx(
        {
            key.removeprefix(f'{task}/'): value
            for key, value in joint.items()
            if key.startswith(f'{task}/')
        },
        rel=0,
        abs=0,
        nan_ok=True,
    )
    alone = tensors(predictions(tmp_path / 'found.pkl'))
    together = tensors(predictions(joint_test / f'found.{task}.pkl'))
    assert alone
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a, b)
    pictures = [p for p in (tmp_path / 'pictures').rglob('*') if p.suffix in ('.png', '.jpg')]
    assert len(pictures) == 3


@pytest.mark.slow
def test_two_processes_find_what_one_finds(labeled, checkpoint, joint_test, tmp_path):
    config = labeled / 'joint.py'
    where = ('--work-dir', tmp_path)
    result = run_tool('dist_test.sh', config, checkpoint, 2, *where, PORT='29545')
    assert result.returncode == 0, result.stderr[-3000:]
    assert metrics_of(tmp_path) == pytest.approx(metrics_of(joint_test), rel=1e-6, nan_ok=True)


@pytest.mark.slow
def test_augmented_segmentation(labeled, checkpoint, run, tmp_path):
    config = tmp_path / 'tta.py'
    config.write_text(
        f"""
_base_ = {str(labeled / 'ade20k.py')!r}
tta_model = dict(type='SegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='RandomFlip', prob=0.), dict(type='RandomFlip', prob=1.)],
        [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]])]
"""
    )
    run(config, checkpoint, '--work-dir', tmp_path / 'flipped', '--tta')
    assert 'mIoU' in metrics_of(tmp_path / 'flipped')


class Twice(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list


@pytest.mark.parametrize('wrap', [nn.Identity, nn.DataParallel, lambda net: Twice(module=net)])
def test_wrapped_models_take_the_same_checkpoints(wrap, tmp_path):
    net = nn.Sequential(nn.Linear(2, 1))
    net.test_step = net.forward  # BaseTTAModel asks for it
    path = str(tmp_path / 'a.pth')
    torch.save({**net.state_dict(), 'text.position_ids': torch.arange(3)}, path)
    model = net if wrap is nn.Identity else wrap(net)
    runner = SimpleNamespace(model=model, call_hook=lambda *_, **__: None, logger=Mock())
    runner.load_checkpoint = partial(Runner.load_checkpoint, runner)
    runpy.run_path(str(ROOT / 'tools' / 'test.py'))['load_strictly'](runner)
    net[0].weight.data.zero_()
    runner.load_checkpoint(path)
    assert net[0].weight.any()


def test_what_does_not_fit_is_one_sentence(labeled, checkpoint, run, tmp_path, capsys):
    state = torch.load(checkpoint)
    del state['state_dict']['tasks.imagenet.head.fc.bias']
    state['state_dict']['tasks.imagenet.neck.weight'] = torch.ones(1)
    torch.save(state, tmp_path / 'other.pth')
    config = labeled / 'imagenet.py'
    where = ('--work-dir', tmp_path)
    for arguments, message in (
        ((config, tmp_path / 'none.pth'), 'there is no checkpoint'),
        ((config, tmp_path / 'other.pth', *where), 'head.fc.bias'),
        ((config, checkpoint, '--tta'), 'no tta_model and no tta_pipeline'),
        ((config, checkpoint, '--out', 'found.json'), 'must end in .pkl'),
        ((labeled / 'joint.py', checkpoint, '--tta'), 'single task'),
        ((labeled / 'joint.py', checkpoint, '--show-dir', tmp_path), 'single task'),
        (
            (labeled / 'ade20k.py', checkpoint, '--cfg-options', f'{DATASET}.img_suffix=.tif'),
            f'{DATASET}: there are no images; correct data_root',
        ),
    ):
        with pytest.raises(SystemExit) as stop:
            run(*arguments)
        assert stop.value.code == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith('test.py: error: ') and message in error


def test_an_image_that_is_too_small_for_the_model_is_named(
    labeled, checkpoint, run, tmp_path, capsys
):
    root = tmp_path / 'ade20k'
    shutil.copytree(labeled / 'ade20k', root)
    for folder, mode in (('images', 'RGB'), ('annotations', 'L')):
        Image.new(mode, (64, 3)).save(root / folder / 'val' / '9.png')
    options = ('--cfg-options', f'test_dataloader.dataset.data_root={root}')
    with pytest.raises(SystemExit) as stop:
        run(labeled / 'ade20k.py', checkpoint, '--work-dir', tmp_path / 'work', *options)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'images of 3 x 64 pixels are too small: KPUBackbone needs 32' in error
    assert error.endswith(f"The batch has '{root}/images/val/9.png'; replace what is too small.")
