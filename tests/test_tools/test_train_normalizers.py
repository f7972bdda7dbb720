"""Training on normalised targets as users start it."""

import pytest
import torch
from mmengine.config import Config

from kpu_mm.models.pretrained import read_checkpoint
from kpu_mm.models.projectors import load_projectors
from kpu_mm.registry import MODELS
from tests.runs import kill_training_at, losses_of, run_tool

CONFIG = """
_base_ = {base!r}
model = dict(normalizer=dict(type='kpu_mm.{name}'),
             student=dict(drop_path_rate=0))
default_hooks = dict(normalizer_fit=dict(num_images=64),
                     checkpoint=dict(interval=3))
log_processor = dict(window_size=1)
train_cfg = dict(max_iters=6)
"""


@pytest.fixture
def write_config(run_config, tmp_path):
    def write(name):
        path = tmp_path / 'normalized.py'
        path.write_text(CONFIG.format(base=str(run_config), name=name))
        return path

    return write


def train(tool, config, work_dir, *args, **env):
    result = run_tool(tool, config, *args, '--work-dir', work_dir, **env)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'GlobalStandardNormalizer',
        'StandardNormalizer',
        'PCANormalizer',
        'ZCANormalizer',
        'HCANormalizer',
        'PHISNormalizer',
    ],
)
def test_trains_resumes_and_exports(write_config, tmp_path, name):
    config = write_config(name)
    log = train('train.py', config, tmp_path / 'whole')
    assert "Normalizers of ['dino', 'coarse'] fitted to 64 images" in log

    kill_training_at(tmp_path / 'killed' / 'iter_3.pth', config)
    log = train('train.py', config, tmp_path / 'killed', '--resume')
    assert 'Normalizers of' not in log
    expected, got = (
        losses_of(tmp_path / 'whole'),
        losses_of(tmp_path / 'killed'),
    )
    assert set(expected) == set(range(1, 7))
    assert got == expected  # bit for bit
    whole, resumed = (
        read_checkpoint(tmp_path / d / 'iter_6.pth')['state_dict']
        for d in ('whole', 'killed')
    )
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key

    checkpoint, out = tmp_path / 'whole' / 'iter_6.pth', tmp_path / 'student'
    done = run_tool('export.py', config, checkpoint, out)
    assert done.returncode == 0, done.stderr[-3000:]
    model = MODELS.build(Config.fromfile(config).model)
    model.load_state_dict(whole)
    for teacher, exported in load_projectors(out).items():
        trained = model.projectors['s2t'][teacher]
        for which in ('summary', 'maps'):
            ours, own = getattr(exported, which), getattr(trained, which)
            affine = getattr(model.normalizers[teacher], which)
            if which == 'maps':
                ours, own, affine = ours[0], own[0], affine[0]
            x = torch.randn(5, own[0].in_features)
            torch.testing.assert_close(
                ours(x), affine.invert(own(x)), rtol=1e-4, atol=1e-4
            )


@pytest.mark.slow
def test_two_processes_fit_as_one(write_config, tmp_path):
    config = write_config('PHISNormalizer')
    train('train.py', config, tmp_path / 'one')
    train(
        'dist_train.sh',
        config,
        tmp_path / 'two',
        2,
        '--cfg-options',
        'train_dataloader.dino.batch_size=2',
        'train_dataloader.coarse.batch_size=1',
        PORT='29547',
    )
    one, two = (
        read_checkpoint(tmp_path / d / 'iter_6.pth')['state_dict']
        for d in ('one', 'two')
    )
    keys = [k for k in one if k.startswith('normalizers.')]
    assert any(k.endswith('summary.weight') for k in keys)
    for key in keys:
        a, b = one[key].double(), two[key].double()
        if key.endswith('weight'):  # axes may turn where variances are close
            a, b = a.T @ a, b.T @ b
        elif key.endswith('inverse'):
            a, b = a @ a.T, b @ b.T
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=key)
    expected, got = losses_of(tmp_path / 'one'), losses_of(tmp_path / 'two')
    for step, row in expected.items():
        for key, value in row.items():
            if not key.startswith('std'):  # of half a batch each
                assert got[step][key] == pytest.approx(value, rel=1e-3), key


@pytest.mark.slow
def test_another_normalizer_is_not_resumed(write_config, tmp_path):
    config = write_config('PHISNormalizer')
    train('train.py', config, tmp_path / 'w')
    config = write_config('ZCANormalizer')
    result = run_tool(
        'train.py', config, '--work-dir', tmp_path / 'w', '--resume'
    )
    assert result.returncode != 0
    assert 'trained on targets of a PHISNormalizer' in result.stderr
