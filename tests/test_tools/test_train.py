"""Training as users start it: each run is a process of its own."""

import json
import re
import runpy
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from mmengine.config import Config

from kpu_mm.weights.checkpoint_file import read_checkpoint
from tests.runs import ROOT, kill_training_at, losses_of, run_tool

NO_DROP_PATH = 'model.student.drop_path_rate=0'


def train(config, work_dir, *args):
    return run_tool('train.py', config, '--work-dir', work_dir, *args)


def log_window_of_one(*args):
    """The log's running means would mix iterations."""
    return ('--cfg-options', 'log_processor.window_size=1', *args)


@pytest.mark.parametrize('kind', [dict(runner_type='kpu_mm.KPURunner'), {}])
def test_resume_of_a_run_with_given_weights(kind, tmp_path):
    set_resume = runpy.run_path(str(ROOT / 'tools' / 'train.py'))['set_resume']

    def resumed(checkpoint):
        cfg = Config(dict(work_dir=str(tmp_path), load_from='w.pth', resume=False, **kind))
        set_resume(cfg, checkpoint)
        return cfg.resume, cfg.load_from

    # MMEngine's own runner takes load_from for the checkpoint to resume.
    first, later = ((False, 'w.pth'), (True, None)) if not kind else (('auto', 'w.pth'),) * 2
    assert resumed(None) == (False, 'w.pth')
    assert resumed('auto') == first
    path = tmp_path / 'last_checkpoint'
    path.touch()
    assert resumed('auto') == later
    assert resumed(str(path)) == (True, str(path))


@pytest.fixture(scope='module')
def whole_run(run_config, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('whole')
    result = train(run_config, work_dir, *log_window_of_one())
    assert result.returncode == 0, result.stderr[-3000:]
    return work_dir


@pytest.mark.slow
def test_kill_and_resume_gives_the_same_curve(run_config, whole_run, tmp_path):
    kill_training_at(tmp_path / 'killed' / 'iter_4.pth', run_config, *log_window_of_one())
    result = train(
        run_config,
        tmp_path / 'killed',
        '--resume',
        # other workers must not matter
        *log_window_of_one('train_dataloader.dino.num_workers=1'),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    expected, got = losses_of(whole_run), losses_of(tmp_path / 'killed')
    assert set(expected) == set(range(1, 13))
    assert got == expected  # bit for bit
    states = [read_checkpoint(d / 'iter_12.pth') for d in (whole_run, tmp_path / 'killed')]
    for key, value in states[0]['state_dict'].items():
        assert torch.equal(value, states[1]['state_dict'][key]), key
    assert states[0]['optimizer']['state'].keys() == (states[1]['optimizer']['state'].keys())


@pytest.mark.slow
def test_images_that_cannot_be_used_are_skipped_and_named(whole_run):
    (log,) = whole_run.glob('*/*.log')
    text = log.read_text()
    assert re.search(r'skipped \S+/long\.png: the sides of 48 x 1 pixels differ', text)
    assert re.search(r'skipped \S+/damaged\.jpg: Corrupt JPEG data: premature end', text)
    assert re.search(r'\d+ of \d+ images skipped so far', text)


@pytest.mark.slow
def test_checkpoints_hold_what_was_trained(whole_run):
    state = read_checkpoint(whole_run / 'iter_12.pth')
    keys = state['state_dict']
    assert not any('sentinel.' in k or 'teacher' in k for k in keys)
    name = json.loads(bytes(keys['student._extra_state'].tolist()))
    assert len(name['sha256']) == 64 and 'dinov2' in name['sentinel']
    trained = [k for k in keys if not k.endswith('_extra_state')]
    assert len(state['optimizer']['state']) == len(trained)
    # nothing half-written is left, and old ones are gone
    assert {p.name for p in whole_run.glob('*.p*')} == {
        'iter_4.pth',
        'iter_8.pth',
        'iter_12.pth',
        'run.py',
    }


@pytest.mark.slow
def test_truncated_newest_checkpoint_is_passed_over(run_config, whole_run, tmp_path):
    work_dir = shutil.copytree(whole_run, tmp_path / 'copy')
    newest = work_dir / 'iter_12.pth'
    newest.write_bytes(newest.read_bytes()[:-1000])
    result = train(run_config, work_dir, '--resume')
    assert result.returncode == 0, result.stderr[-3000:]
    log = result.stdout + result.stderr
    assert 'iter_12.pth is truncated' in log
    assert 'iter_8.pth' in log
    assert read_checkpoint(newest)['meta']['iter'] == 12

    newest.write_bytes(newest.read_bytes()[:-1000])
    result = train(run_config, work_dir, '--resume', str(newest))
    assert result.returncode != 0
    assert 'truncated' in result.stderr


@pytest.fixture(scope='module')
def joined_run(run_config, tmp_path_factory):
    """One process with the batch that two will share."""
    work_dir = tmp_path_factory.mktemp('one')
    result = train(run_config, work_dir, *log_window_of_one(NO_DROP_PATH))
    assert result.returncode == 0, result.stderr[-3000:]
    return work_dir


@pytest.mark.slow
@pytest.mark.parametrize(('nodes', 'backward'), [(1, 'joint'), (2, 'per_stream')])
def test_two_processes_equal_one(run_config, joined_run, tmp_path, nodes, backward):
    def train_node(rank):
        return run_tool(
            'dist_train.sh',
            run_config,
            2 // nodes,
            '--work-dir',
            tmp_path / 'two',
            *log_window_of_one(NO_DROP_PATH, f'model.backward={backward}'),
            'train_dataloader.dino.batch_size=2',
            'train_dataloader.coarse.batch_size=1',
            PORT='29541',
            NNODES=str(nodes),
            NODE_RANK=str(rank),
            # nodes without a common home directory
            XDG_CACHE_HOME=str(tmp_path / f'cache{rank}'),
        )

    with ThreadPoolExecutor(nodes) as pool:
        for two in pool.map(train_node, range(nodes)):
            assert two.returncode == 0, two.stderr[-3000:]
    # each node has scanned the folder for itself
    assert all(list(tmp_path.glob(f'cache{i}/kpu_mm/index/list-*.npy')) for i in range(nodes))
    expected, got = losses_of(joined_run), losses_of(tmp_path / 'two')
    assert len(expected) == 12
    for step, row in expected.items():
        for key, value in row.items():
            if not key.startswith('std'):  # of half a batch each
                assert got[step][key] == pytest.approx(value, rel=1e-5, abs=1e-5), (step, key)


@pytest.mark.slow
def test_bfloat16_accumulation_ema_pictures_and_tensorboard(run_config, tmp_path):
    config = tmp_path / 'more.py'
    config.write_text(
        f"""
_base_ = {str(run_config)!r}
optim_wrapper = dict(accumulative_counts=2)
custom_hooks = [dict(type='EMAHook'),
                dict(type='kpu_mm.FeaturePCAHook', interval=6)]
visualizer = dict(vis_backends=[dict(type='LocalVisBackend'),
                                dict(type='TensorboardVisBackend')])
"""
    )
    result = train(config, tmp_path / 'w', '--amp')
    assert result.returncode == 0, result.stderr[-3000:]
    state = read_checkpoint(tmp_path / 'w' / 'iter_12.pth')
    assert not any('sentinel.' in k for k in state['ema_state_dict'])
    assert list((tmp_path / 'w').glob('*/vis_data/events.out*'))
    pictures = (tmp_path / 'w').glob('*/vis_data/vis_image/*.png')
    assert {p.name for p in pictures} == {
        f'pca_{name}_{step}.png' for name in ('dino', 'coarse') for step in (6, 12)
    }


@pytest.mark.slow
def test_nan_stops_with_one_sentence(run_config, tmp_path):
    result = train(run_config, tmp_path / 'w', '--cfg-options', 'optim_wrapper.optimizer.lr=1e30')
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith('train.py: error: iteration') and 'resume_schedule=config' in last
    assert not list((tmp_path / 'w').glob('*.pth'))
