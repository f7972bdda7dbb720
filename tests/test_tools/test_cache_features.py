"""The tool as users start it, and runs that read what it wrote."""

import signal
import subprocess
import sys
import time

import pytest
import torch

from kpu_mm.weights.checkpoint_file import read_checkpoint
from tests.fixtures_cache import TOOL, loss_rows, write_cached
from tests.runs import ENV, kill_training_at, losses_of, run_tool


def content(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob('*')
        if p.suffix in ('.safetensors', '.json')
    }


def start(*arguments, **env):
    return subprocess.Popen(
        [sys.executable, str(TOOL), *map(str, arguments)],
        env={**ENV, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_sizes_are_told_and_nothing_is_written(
    live_config, tmp_path, run_cache_tool, capsys
):
    out = tmp_path / 'out'
    assert run_cache_tool(live_config, out, '--estimate') == 0
    text = capsys.readouterr().out
    assert 'an image x 12 images x 2 views = ' in text
    assert 'are free' in text and not out.exists()


def test_a_full_disk_is_refused(
    live_config, tmp_path, run_cache_tool, capsys, monkeypatch
):
    monkeypatch.setattr(
        'kpu_mm.datasets.feature_cache.estimate.free_bytes', lambda _: 1000
    )
    assert run_cache_tool(live_config, tmp_path / 'a', '--views', 1) == 2
    error = capsys.readouterr().err
    assert '1 kB are free' in error and '--force' in error
    assert not (tmp_path / 'a').exists()
    arguments = ('--views', 1, '--teachers', 'clip', '--force')
    assert run_cache_tool(live_config, tmp_path / 'a', *arguments) == 0
    assert [p.name for p in (tmp_path / 'a').iterdir()] == ['clip']


def test_again_writes_nothing_and_with_more_views_those(
    caches_copy, live_config, run_cache_tool, capsys
):
    before = content(caches_copy)
    assert run_cache_tool(live_config, caches_copy) == 0
    assert content(caches_copy) == before
    assert '0 files written' in capsys.readouterr().out
    assert run_cache_tool(live_config, caches_copy, '--views', 3) == 0
    chunks = {k: v for k, v in before.items() if k.endswith('s')}
    assert chunks.items() < content(caches_copy).items()
    # what the first views are for goes on as before
    cached = write_cached(live_config, caches_copy, caches_copy)
    assert len(loss_rows(cached, 1)) == 1


def test_another_config_is_refused(
    caches_copy, live_config, run_cache_tool, capsys
):
    before = content(caches_copy)
    for option, message in (
        ('train_dataloader.clip.dataset.pipeline.0.size=32', 'pipeline[0].si'),
        ('model.teachers.clip.resolution="[96,96]"', 'teacher.config.resolut'),
    ):
        arguments = (live_config, caches_copy, '--cfg-options', option)
        assert run_cache_tool(*arguments) == 2
        error = capsys.readouterr().err
        assert 'made from something else: ' + message in error
    assert run_cache_tool(live_config, caches_copy, '--dtype', 'bfloat16') == 2
    assert 'dtype is' in capsys.readouterr().err
    assert content(caches_copy) == before


def test_verify_and_repair(caches_copy, cached_config, run_cache_tool, capsys):
    before = content(caches_copy)
    # the config that reads caches tells the tool as much
    assert run_cache_tool(cached_config, caches_copy, '--verify') == 0
    victim = caches_copy / 'gdino' / 'view-001' / 'chunk-000000.safetensors'
    data = bytearray(victim.read_bytes())
    data[-1] ^= 8
    victim.write_bytes(data)
    assert run_cache_tool(cached_config, caches_copy, '--verify') == 1
    text = capsys.readouterr().out
    assert f'{victim}: is altered' in text and '1 files are faulty' in text
    victim.unlink()
    assert run_cache_tool(cached_config, caches_copy) == 0
    assert content(caches_copy) == before


def test_unknown_teachers_are_refused(
    live_config, tmp_path, run_cache_tool, capsys
):
    arguments = (live_config, tmp_path, '--teachers', 'nobody')
    assert run_cache_tool(*arguments) == 2
    assert "not ['nobody']" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_writers_go_on(live_config, feature_caches, tmp_path):
    out = tmp_path / 'out'
    arguments = (live_config, out, '--chunk-mb', '0.1', '--workers', 1)
    killed = start(*arguments)
    deadline = time.time() + 200
    while not list(out.glob('clip/*/*.safetensors')):
        assert killed.poll() is None and time.time() < deadline
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    there = {p: p.stat().st_mtime_ns for p in out.rglob('*.safetensors')}
    assert not (out / 'gdino' / 'index.json').exists()
    resumed = start(*arguments)
    text = resumed.communicate()[0]
    assert resumed.returncode == 0, text[-3000:]
    assert content(out) == content(feature_caches)
    assert not list(out.rglob('*.tmp'))
    assert all(p.stat().st_mtime_ns == t for p, t in there.items())


@pytest.mark.slow
def test_two_processes_write_what_one_does(
    live_config, feature_caches, tmp_path
):
    out = tmp_path / 'out'
    arguments = (live_config, out, '--chunk-mb', '0.1', '--workers', 0)
    both = [start(*arguments, RANK=str(r), WORLD_SIZE='2') for r in range(2)]
    texts = [process.communicate()[0] for process in both]
    assert not any(process.returncode for process in both), texts
    assert content(out) == content(feature_caches)


@pytest.fixture(scope='module')
def whole_run(cached_config, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('cached')
    result = run_tool('train.py', cached_config, '--work-dir', work_dir)
    assert result.returncode == 0, result.stderr[-3000:]
    return work_dir


@pytest.mark.slow
def test_kill_and_resume_with_a_cache(cached_config, whole_run, tmp_path):
    work_dir = tmp_path / 'killed'
    kill_training_at(work_dir / 'iter_4.pth', cached_config)
    result = run_tool(
        'train.py',
        cached_config,
        '--work-dir',
        work_dir,
        '--resume',
        '--cfg-options',
        'train_dataloader.gdino.num_workers=2',  # must not matter
    )
    assert result.returncode == 0, result.stderr[-3000:]
    expected, got = losses_of(whole_run), losses_of(work_dir)
    assert set(expected) == set(range(1, 9))
    assert got == expected  # bit for bit
    states = [
        read_checkpoint(d / 'iter_8.pth')['state_dict']
        for d in (whole_run, work_dir)
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


@pytest.mark.slow
def test_training_is_that_without_a_cache(live_config, whole_run, tmp_path):
    work_dir = tmp_path / 'live'
    result = run_tool('train.py', live_config, '--work-dir', work_dir)
    assert result.returncode == 0, result.stderr[-3000:]
    expected, got = losses_of(work_dir), losses_of(whole_run)
    assert set(expected) == set(range(1, 9))
    for step, row in expected.items():
        assert got[step] == pytest.approx(row, rel=2e-3, abs=2e-3), step
    # checkpoints of one go on in the other
    states = [
        read_checkpoint(d / 'iter_8.pth')['state_dict']
        for d in (whole_run, work_dir)
    ]
    assert states[0].keys() == states[1].keys()
