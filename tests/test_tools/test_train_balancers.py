"""Runs whose balancers have a state or draw random numbers."""

import pytest
import torch

from kpu_mm.weights.checkpoint_file import read_checkpoint
from tests.runs import kill_training_at, losses_of, run_tool

OPTIONS = ('--cfg-options', 'log_processor.window_size=1')
FAMO = "balancer=dict(type='kpu_mm.FAMOBalancer')"
DROP = "balancer=dict(type='kpu_mm.TeacherDropBalancer')"
ONE_STREAM = """
train_dataloader = dict(
    _delete_=True, dino={{_base_.train_dataloader.dino}}
)
"""
# what a run's config adds, and the options of one of two processes
RUNS = dict(
    famo=(FAMO, '', ['dino.batch_size=2', 'coarse.batch_size=1']),
    drop=(DROP, '', ['dino.batch_size=2', 'coarse.batch_size=1']),
    drop_images=(f"{DROP}, streams=dict(coarse='dino')", ONE_STREAM, ['dino.batch_size=2']),
)


@pytest.fixture(scope='module', params=RUNS)
def config(request, run_config, tmp_path_factory):
    path = tmp_path_factory.mktemp('balanced') / f'{request.param}.py'
    model, more, _ = RUNS[request.param]
    path.write_text(
        f'_base_ = {str(run_config)!r}\n'
        f'model = dict({model}, student=dict(drop_path_rate=0.0))\n{more}'
    )
    return path


@pytest.fixture(scope='module')
def whole_run(config):
    work_dir = config.parent / 'whole'
    result = run_tool('train.py', config, '--work-dir', work_dir, *OPTIONS)
    assert result.returncode == 0, result.stderr[-3000:]
    rows = losses_of(work_dir)
    weights = [rows[i]['weight/dino'] for i in range(1, 13)]
    assert len(set(weights)) > 1  # the log has them, and they do change
    for row in rows.values():
        total = row['weight/dino'] + row['weight/coarse']
        assert total == pytest.approx(1, abs=1e-6)
    return work_dir


@pytest.mark.slow
def test_kill_and_resume_is_bit_for_bit(config, whole_run, tmp_path):
    work_dir = tmp_path / 'killed'
    kill_training_at(work_dir / 'iter_4.pth', config, *OPTIONS)
    result = run_tool('train.py', config, '--work-dir', work_dir, '--resume', *OPTIONS)
    assert result.returncode == 0, result.stderr[-3000:]
    assert losses_of(work_dir) == losses_of(whole_run)
    first, second = (
        read_checkpoint(d / 'iter_12.pth')['state_dict'] for d in (whole_run, work_dir)
    )
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.mark.slow
def test_two_processes_equal_one(config, whole_run, tmp_path):
    result = run_tool(
        'dist_train.sh',
        config,
        2,
        '--work-dir',
        tmp_path / 'two',
        *OPTIONS,
        *(f'train_dataloader.{o}' for o in RUNS[config.stem][2]),
        PORT='29549',
    )
    assert result.returncode == 0, result.stderr[-3000:]
    expected, got = losses_of(whole_run), losses_of(tmp_path / 'two')
    assert len(expected) == 12
    for step, row in expected.items():
        for key, value in row.items():
            if not key.startswith('std'):  # of half a batch each
                assert got[step][key] == pytest.approx(value, rel=1e-5, abs=1e-5), (step, key)
