"""Labelled training as users start it: each run is a process of its own."""

import json

import pytest
import torch

from kpu_mm.weights.state_dict import load_state
from tests.runs import kill_training_at, losses_of, run_tool

TASKS = ('coco', 'ade20k', 'imagenet')
HALVES = dict(
    coco=['train_dataloader.batch_size=1'],
    joint=[f'train_dataloader.{task}.batch_size=1' for task in TASKS],
)
WORKERS = dict(
    coco=['train_dataloader.num_workers=1'],
    joint=[f'train_dataloader.{task}.num_workers=1' for task in TASKS[:2]],
)


@pytest.fixture(scope='module')
def whole_runs(labeled, tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    for name in ('coco', 'joint'):
        result = run_tool('train.py', labeled / f'{name}.py', '--work-dir', folder / name)
        assert result.returncode == 0, result.stderr[-3000:]
    return folder


def validation_of(work_dir):
    """The metrics, which are logged last."""
    (*_, path) = sorted(work_dir.glob('*/vis_data/scalars.json'))
    row = json.loads(path.read_text().splitlines()[-1])
    metrics = {k: v for k, v in row.items() if '/' in k}
    assert metrics
    return metrics


def states_of(work_dir):
    return load_state(work_dir / 'iter_4.pth')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['coco', 'joint'])
def test_kill_and_resume_gives_the_same_run(name, labeled, whole_runs, tmp_path):
    config, killed = labeled / f'{name}.py', tmp_path / 'killed'
    kill_training_at(killed / 'iter_2.pth', config)
    result = run_tool(
        'train.py',
        config,
        '--work-dir',
        killed,
        '--resume',
        '--cfg-options',
        *WORKERS[name],  # other workers must not matter
    )
    assert result.returncode == 0, result.stderr[-3000:]
    expected, got = losses_of(whole_runs / name), losses_of(killed)
    assert set(expected) == {1, 2, 3, 4}
    assert got == expected  # bit for bit
    assert validation_of(killed) == pytest.approx(
        validation_of(whole_runs / name), rel=0, abs=0, nan_ok=True
    )
    resumed = states_of(killed)
    for key, value in states_of(whole_runs / name).items():
        assert torch.equal(value, resumed[key]), key


@pytest.mark.slow
def test_all_tasks_are_validated(whole_runs):
    assert {'coco/coco/bbox_mAP', 'ade20k/mIoU', 'imagenet/accuracy/top1'} <= set(
        validation_of(whole_runs / 'joint')
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', ['coco', 'joint'])
def test_two_processes_equal_one(name, labeled, whole_runs, tmp_path):
    """The losses are normalised over the images of all ranks."""
    two = run_tool(
        'dist_train.sh',
        labeled / f'{name}.py',
        2,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *HALVES[name],
        PORT={'coco': '29543', 'joint': '29547'}[name],
    )
    assert two.returncode == 0, two.stderr[-3000:]
    expected, got = states_of(whole_runs / name), states_of(tmp_path)
    for key, value in expected.items():
        # a learning rate of 1e-3 moves a weight by 4e-3
        torch.testing.assert_close(got[key], value, rtol=0, atol=1e-5)
    if name == 'joint':  # single models log the losses of their own rank
        expected, got = losses_of(whole_runs / name), losses_of(tmp_path)
        assert set(expected) == set(got) == {1, 2, 3, 4}
        for step, row in expected.items():
            assert got[step] == pytest.approx(row, rel=1e-5), step
    # each rank evaluates its share, the metrics are of all
    assert validation_of(tmp_path).keys() == (validation_of(whole_runs / name).keys())
