"""The help of each tool has an example, which the tool understands."""

import ast
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = sorted(p for p in (ROOT / 'tools').rglob('*.py') if '\ndef main(' in p.read_text('utf-8'))


def examples(path):
    text = ast.get_docstring(ast.parse(path.read_text('utf-8')))
    found = re.findall(r'^    (python tools/(?:.*\\\n)*.*)', text, re.MULTILINE)
    return [shlex.split(line.replace('\\\n', '')) for line in found]


@pytest.mark.parametrize('path', TOOLS, ids=lambda p: p.stem)
def test_examples_are_understood(path, monkeypatch):
    assert examples(path)
    monkeypatch.setattr(sys, 'path', [str(path.parent), *sys.path])
    tool = runpy.run_path(str(path))
    for _, name, *arguments in examples(path):
        assert ROOT / name == path
        monkeypatch.setattr(sys, 'argv', [name, *arguments])
        if 'parse_args' in tool:
            tool['parse_args']()
        for argument in arguments:
            if argument.startswith('configs/'):
                assert (ROOT / argument).is_file(), argument


@pytest.mark.parametrize('name', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test'])
def test_examples_of_scripts(name):
    done = subprocess.run(
        ['bash', f'tools/{name}.sh', '--help'], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    usage, example = done.stderr.splitlines()
    required = re.findall(r'\b[A-Z_]{3,}\b', usage)
    arguments = example.split(f'tools/{name}.sh ')[1].split()
    assert len(arguments) == len(required)
    (config,) = (a for a in arguments if a.startswith('configs/'))
    assert (ROOT / config).is_file()
