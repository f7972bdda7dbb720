"""Training on normalised targets, in this process and as users start it."""

import shutil

import pytest
import torch
from mmengine.config import Config

from kpu_mm.models.student import load_student
from kpu_mm.registry import MODELS
from kpu_mm.utils.command_line import build_runner
from kpu_mm.weights.checkpoint_file import read_checkpoint
from tests.runs import kill_training_at, losses_of, run_tool

CONFIG = """
_base_ = {base!r}
model = dict(normalizer=dict(type='kpu_mm.{name}'),
             student=dict(drop_path_rate=0))
train_dataloader = dict(dino=dict(num_workers=0))
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


def train_here(config, work_dir, **options):
    cfg = Config.fromfile(config)
    cfg.update(options)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{config.parent.name}_{work_dir.name}'
    build_runner(cfg).train()


def assert_same_run(first, second):
    expected, got = losses_of(first), losses_of(second)
    assert set(expected) == set(range(1, 7))
    assert all(expected[step] == row for step, row in got.items())
    assert got[6] == expected[6]
    whole, resumed = (read_checkpoint(d / 'iter_6.pth')['state_dict'] for d in (first, second))
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key  # bit for bit


def assert_exports(config, checkpoint, out):
    """The last layers give features of the teachers' own spaces."""
    done = run_tool('export.py', config, checkpoint, out)
    assert done.returncode == 0, done.stderr[-3000:]
    model = MODELS.build(Config.fromfile(config).model)
    model.load_state_dict(read_checkpoint(checkpoint)['state_dict'])
    for teacher, link in load_student(out).links.items():
        exported, trained = link.s2t, model.links[teacher].s2t
        normalizer = model.links[teacher].normalizer
        for folded, own, affine in (
            (exported.summary, trained.summary, normalizer.summary),
            (exported.maps[0], trained.maps[0], normalizer.maps[0]),
        ):
            x = torch.randn(5, own[0].in_features)
            torch.testing.assert_close(folded(x), affine.invert(own(x)), rtol=1e-4, atol=1e-4)


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
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    train_here(config, whole)
    resumed.mkdir()
    shutil.copy(whole / 'iter_3.pth', resumed)
    train_here(config, resumed, resume=True)
    assert_same_run(whole, resumed)
    assert_exports(config, whole / 'iter_6.pth', tmp_path / 'student')


@pytest.mark.slow
def test_another_normalizer_is_not_resumed(write_config, tmp_path):
    train_here(write_config('PHISNormalizer'), tmp_path / 'w')
    config = write_config('ZCANormalizer')
    with pytest.raises(RuntimeError, match='on targets of a PHISNormalizer'):
        train_here(config, tmp_path / 'w', resume=True)


def train(tool, config, work_dir, *args, **env):
    result = run_tool(tool, config, *args, '--work-dir', work_dir, **env)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout + result.stderr


@pytest.mark.slow
def test_kill_and_resume_gives_the_same_curve(write_config, tmp_path):
    config = write_config('PHISNormalizer')
    log = train('train.py', config, tmp_path / 'whole')
    assert "Normalizers of ['dino', 'coarse'] fitted to 64 images" in log
    kill_training_at(tmp_path / 'killed' / 'iter_3.pth', config)
    log = train('train.py', config, tmp_path / 'killed', '--resume')
    assert 'Normalizers of' not in log
    assert_same_run(tmp_path / 'whole', tmp_path / 'killed')


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
        PORT='29551',
    )
    one, two = (read_checkpoint(tmp_path / d / 'iter_6.pth')['state_dict'] for d in ('one', 'two'))
    keys = [k for k in one if '.normalizer.' in k]
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
