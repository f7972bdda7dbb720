"""Shell scripts and the Makefile."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIND_PYTHON = ROOT / 'tools' / 'install' / 'find_python.sh'
CHROMIUM = ROOT / 'tools' / 'install' / 'chromium.sh'
SCRIPTS = [ROOT / '.ci' / 'run', *sorted(ROOT.glob('tools/**/*.sh'))]


def run(*command, **env):
    # the tests may themselves run under make, or in an environment
    inner = ('MAKEFLAGS', 'MAKELEVEL', 'MFLAGS', 'VIRTUAL_ENV', 'CONDA_DEFAULT_ENV')
    outside = {k: v for k, v in os.environ.items() if k not in inner}
    return subprocess.run(
        [str(word) for word in command], env={**outside, **env}, capture_output=True, text=True
    )


def make_program(path, text):
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_script_parses_and_can_be_run(script):
    done = run('bash', '-n', script)
    assert done.returncode == 0, done.stderr
    assert os.access(script, os.X_OK)


def test_make_parses_and_helps():
    done = run('make', '-C', ROOT, '--no-print-directory')
    assert (done.returncode, done.stderr) == (0, '')
    targets = [line.split()[0] for line in done.stdout.splitlines()]
    expected = 'help install demo real reproduce docs test lint format clean'
    assert set(targets) == set(expected.split())


@pytest.mark.parametrize(
    ('arguments', 'python', 'venv'),
    [
        ((), '.venv/bin/python', True),
        (('VIRTUAL_ENV=/my/env',), '/my/env/bin/python', False),
        (('VIRTUAL_ENV=/my/env', 'PY=/usr/bin/py'), '/usr/bin/py', False),
        (('CONDA_DEFAULT_ENV=mm', 'CONDA_PREFIX=/conda/mm'), '/conda/mm/bin/python', False),
        (('CONDA_DEFAULT_ENV=base', 'CONDA_PREFIX=/conda'), '.venv/bin/python', True),
    ],
)
def test_make_install_takes_the_active_environment(tmp_path, arguments, python, venv):
    for name in ('Makefile', 'setup.py'):
        (tmp_path / name).symlink_to(ROOT / name)
    done = run('make', '-n', '-C', tmp_path, 'install', *arguments)
    assert done.returncode == 0, done.stderr
    assert ('-m venv' in done.stdout) == venv
    assert f"'{python}' tools/install/install_mm.py --for downstream" in (done.stdout)


def test_python_that_fits_is_found(tmp_path):
    for name in ('python3', 'python3.11', 'python3.12'):
        make_program(tmp_path / name, 'exit 1')
    make_program(tmp_path / 'python3.12', 'exit 0')
    done = run(FIND_PYTHON, PYTHON='', PATH=f'{tmp_path}:/usr/bin:/bin')
    assert done.stdout.strip() == str(tmp_path / 'python3.12')


def test_named_python_that_does_not_fit_is_refused(tmp_path):
    old = tmp_path / 'old'
    answer = 'case "$2" in *platform*) echo Python 3.9.1;; *) exit 1;; esac'
    make_program(old, answer)
    done = run(FIND_PYTHON, PYTHON=str(old))
    assert (done.returncode, done.stdout) == (2, '')
    assert 'kpu_mm needs Python 3.10, 3.11 or 3.12' in done.stderr
    assert f'{old} is Python 3.9.1' in done.stderr


def test_missing_python_is_refused():
    done = run(FIND_PYTHON, PYTHON='/no/python')
    assert done.returncode == 2
    assert '/no/python is not there' in done.stderr


def record_arguments(path):
    make_program(path, 'printf "%s\\n" "$@"')


@pytest.mark.parametrize(
    ('tool', 'files'), [('train', ['a config.py']), ('test', ['a config.py', 'a checkpoint.pth'])]
)
def test_dist_keeps_every_argument_whole(tool, files, tmp_path):
    record_arguments(tmp_path / 'python')
    done = run(
        'bash',
        ROOT / 'tools' / f'dist_{tool}.sh',
        *files,
        '2',
        '--cfg-options',
        'model.name="a b"',
        PYTHON=str(tmp_path / 'python'),
        PORT='29511',
        NNODES='2',
        NODE_RANK='1',
        MASTER_ADDR='10.0.0.1',
    )
    assert done.stdout.splitlines() == [
        '-m',
        'torch.distributed.run',
        '--nnodes=2',
        '--node_rank=1',
        '--master_addr=10.0.0.1',
        '--master_port=29511',
        '--nproc_per_node=2',
        str(ROOT / 'tools' / f'{tool}.py'),
        '--launcher',
        'pytorch',
        *files,
        '--cfg-options',
        'model.name="a b"',
    ]


@pytest.mark.parametrize(
    ('tool', 'given', 'expected'),
    [
        ('train', 'work dir', ['--work-dir', 'work dir']),
        ('test', 'a checkpoint.pth', ['a checkpoint.pth']),
    ],
)
def test_slurm_keeps_every_argument_whole(tool, given, expected, tmp_path):
    record_arguments(tmp_path / 'srun')
    done = run(
        'bash',
        ROOT / 'tools' / f'slurm_{tool}.sh',
        'gpu',
        'job',
        'config.py',
        given,
        '--amp',
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        PYTHON='python',
        GPUS='4',
        SRUN_ARGS='--quotatype=spot --time=1:00',
    )
    words = done.stdout.splitlines()
    assert words[:2] == ['--partition=gpu', '--job-name=job']
    # never more per node than there are in all
    assert {'--ntasks=4', '--ntasks-per-node=4', '--gres=gpu:4'} < set(words)
    assert {'--quotatype=spot', '--time=1:00'} < set(words)
    start = words.index('python')
    assert words[start:] == [
        'python',
        '-u',
        str(ROOT / 'tools' / f'{tool}.py'),
        '--launcher',
        'slurm',
        'config.py',
        *expected,
        '--amp',
    ]


@pytest.mark.parametrize(
    'name',
    [
        'dist_train.sh',
        'dist_test.sh',
        'distributed.sh',
        'slurm_train.sh',
        'slurm_test.sh',
        'slurm.sh',
    ],
)
def test_too_few_arguments(name):
    done = run('bash', ROOT / 'tools' / name, 'x')
    assert done.returncode == 2
    assert done.stderr.startswith('usage: bash')


@pytest.mark.parametrize(
    ('user', 'apt', 'code', 'called'),
    [
        (0, 'exit 0', 0, ['update', 'install']),
        (0, 'exit 100', 100, ['update']),
        (1000, 'exit 0', 1, []),
    ],
)
def test_chromium_is_installed_by_root(tmp_path, user, apt, code, called):
    if not Path('/etc/debian_version').is_file():
        pytest.skip('not Debian')
    log = tmp_path / 'log'
    make_program(tmp_path / 'id', f'echo {user}')
    make_program(tmp_path / 'apt-get', f'echo $1 >> {log}; {apt}')
    done = run('/bin/bash', CHROMIUM, PATH=str(tmp_path))
    assert done.returncode == code, done.stderr
    assert (log.read_text().split() if called else []) == called
    assert ('only root on Debian' in done.stderr) == bool(user)


def test_chromium_that_is_there_is_left_alone(tmp_path):
    make_program(tmp_path / 'chromium', 'exit 1')
    make_program(tmp_path / 'chromedriver', 'exit 1')
    done = run('/bin/bash', CHROMIUM, PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
