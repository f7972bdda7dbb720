"""Labelled training as users start it: each run is a process of its own."""

import json

import pytest
import torch

from tests.runs import kill_training_at, losses_of, run_tool

TASKS = ('coco', 'ade20k', 'imagenet')
WORKERS = dict(
    coco=['train_dataloader.num_workers=1'],
    joint=[f'train_dataloader.{task}.num_workers=1' for task in TASKS[:2]],
)


@pytest.fixture(scope='module')
def whole_runs(labeled, tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    for name in ('coco', 'joint'):
        result = run_tool(
            'train.py', labeled / f'{name}.py', '--work-dir', folder / name
        )
        assert result.returncode == 0, result.stderr[-3000:]
    return folder


def validation_of(work_dir):
    """The metrics, which are logged last."""
    (*_, path) = sorted(work_dir.glob('*/vis_data/scalars.json'))
    row = json.loads(path.read_text().splitlines()[-1])
    metrics = {k: v for k, v in row.items() if '/' in k}
    assert metrics
    return metrics


@pytest.mark.slow
@pytest.mark.parametrize('name', ['coco', 'joint'])
def test_kill_and_resume_gives_the_same_run(
    name, labeled, whole_runs, tmp_path
):
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
    states = [
        torch.load(d / 'iter_4.pth', weights_only=False)
        for d in (whole_runs / name, killed)
    ]
    for key, value in states[0]['state_dict'].items():
        assert torch.equal(value, states[1]['state_dict'][key]), key


@pytest.mark.slow
def test_all_tasks_are_validated(whole_runs):
    assert {
        'coco/coco/bbox_mAP',
        'ade20k/mIoU',
        'imagenet/accuracy/top1',
    } <= set(validation_of(whole_runs / 'joint'))


@pytest.mark.slow
@pytest.mark.parametrize('backward', ['joint', 'per_stream'])
def test_two_processes_equal_one(labeled, whole_runs, tmp_path, backward):
    """The tasks' losses are normalised over the images of all ranks."""
    two = run_tool(
        'dist_train.sh',
        labeled / 'joint.py',
        2,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        f'model.backward={backward}',
        *(f'train_dataloader.{task}.batch_size=1' for task in TASKS),
        PORT='29543',
    )
    assert two.returncode == 0, two.stderr[-3000:]
    expected, got = losses_of(whole_runs / 'joint'), losses_of(tmp_path)
    assert len(expected) == 4
    for step, row in expected.items():
        for key, value in row.items():
            assert got[step][key] == pytest.approx(
                value, rel=1e-5, abs=1e-5
            ), (step, key)
    # each rank evaluates its share, the metrics are of all
    assert validation_of(tmp_path).keys() == (
        validation_of(whole_runs / 'joint').keys()
    )
