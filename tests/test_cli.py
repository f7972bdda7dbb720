import subprocess
import sys

import pytest

from kpu_mm import cli


@pytest.mark.parametrize('name', ['distill', 'train'])
def test_every_command_explains_itself(name):
    line = [sys.executable, '-m', 'kpu_mm.cli', name, '--help']
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0 and 'usage:' in done.stdout


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(['--help'])
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
    ],
)
def test_wrong_arguments(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert sentence in capsys.readouterr().err
