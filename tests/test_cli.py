import subprocess
import sys
from types import SimpleNamespace

import pytest

from kpu_mm import cli
from kpu_mm.apis import distill as call


def test_a_tool_gets_its_own_arguments():
    line = [sys.executable, '-m', 'kpu_mm.cli', 'train', 'missing.py', '--work-dir', 'x']
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 2
    assert 'train.py: error: there is no config file missing.py' in done.stderr
    done = subprocess.run([*line, '--help'], capture_output=True, text=True)
    assert done.returncode == 0
    assert 'usage: train.py' in done.stdout and '--resume' in done.stdout


@pytest.mark.parametrize('arguments', [['--help'], ['distill', '--help']])
def test_help_has_an_example(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 0
    assert 'kpu-mm distill --images' in capsys.readouterr().out


def test_doctor(capsys):
    assert cli.main(['doctor']) == 0
    assert 'torch' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ([], 'required: COMMAND'),
        (['fly'], 'invalid choice'),
        (['distill', '--images', 'a', '--out', 'b', '--teachers', 'clip'], 'no NAME=MODEL'),
        (['distill', '--images', 'a', '--out', 'b', '--teachers', 'clip=c', '--x'], '--x'),
        (['distill', '--images', 'a', '--out', 'b', '--teachers', 'clip=c', 'clip=d'], 'twice'),
    ],
)
def test_wrong_arguments(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """The sentence of a call of distill whose run is set up."""
    line = ['distill', '--images', 'a', '--out', str(tmp_path), '--teachers', 'clip=c']
    monkeypatch.setattr(call, '_open_run', lambda out, given: SimpleNamespace())

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([*line, *arguments])
        assert end.value.code == 2
        return capsys.readouterr().err

    return run


def test_runs_of_one_machine_need_no_port(refused, monkeypatch, tmp_path):
    def run(line):
        assert {'--standalone', '--nproc_per_node=2'} <= set(line)
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(call, 'subprocess', SimpleNamespace(run=run))
    sentence = refused('--gpus', '2')
    assert 'The processes of the run ended with code 1' in sentence
    assert f'dist_train.sh {tmp_path}/config.py 2 --work-dir {tmp_path} --resume`' in sentence


def test_a_loss_that_is_not_finite_says_how_to_go_on(refused, monkeypatch, tmp_path):
    def train():
        raise FloatingPointError('loss = nan. Continue: --resume --cfg-options a=1.')

    monkeypatch.setattr(call, 'build_runner', lambda cfg: SimpleNamespace(train=train))
    sentence = refused()
    assert 'error: loss = nan. Continue: --resume --cfg-options a=1. ' in sentence
    assert f'`kpu-mm train {tmp_path}/config.py --work-dir {tmp_path} --resume`, and' in sentence


def test_a_logger_that_is_not_installed(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(call, 'find_spec', lambda name: None)
    line = ['distill', '--images', 'a', '--out', str(tmp_path / 'out'), '--teachers', 'clip=c']
    with pytest.raises(SystemExit):
        cli.main([*line, '--loggers', 'wandb'])
    assert 'error: wandb is not installed: run `pip install wandb`' in capsys.readouterr().err
