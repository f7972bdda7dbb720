import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'export.py'
ENV = dict(os.environ, PYTHONPATH=str(ROOT))


@pytest.fixture
def config_file(distilled, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f'model = {distilled[0]!r}\n')
    return path


def run(*arguments):
    return subprocess.run(
        [sys.executable, TOOL, *map(str, arguments)], env=ENV, capture_output=True, text=True
    )


def test_exports(distilled, config_file, tmp_path):
    out = tmp_path / 'student'
    done = run(config_file, distilled[1], out)
    assert done.returncode == 0, done.stderr
    files = {str(p.relative_to(out)) for p in out.rglob('*') if p.is_file()}
    assert files == {
        'README.md',
        'config.json',
        'model.safetensors',
        'preprocessor_config.json',
        'projectors.safetensors',
        'sentinel/config.json',
        'sentinel/model.safetensors',
    }
    config = json.loads((out / 'config.json').read_text())
    assert config['backbone']['num_interactions'] == 2


def test_one_sentence_for_a_full_folder(distilled, config_file, tmp_path):
    done = run(config_file, distilled[1], tmp_path)
    assert done.returncode == 2
    assert 'not an empty folder' in done.stderr.splitlines()[-1]
    assert 'Traceback' not in done.stderr


def test_one_sentence_for_a_broken_checkpoint(config_file, tmp_path):
    broken = tmp_path / 'broken.pth'
    broken.write_bytes(b'PK\x03\x04')
    done = run(config_file, broken, tmp_path / 'student')
    assert done.returncode == 2
    assert 'broken.pth' in done.stderr.splitlines()[-1]
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'student').exists()


def test_heads_without_a_graph(config_file, tmp_path):
    done = run(config_file, 'x.pth', tmp_path / 'out', '--heads', 'teacher')
    assert done.returncode == 2
    assert 'add one' in done.stderr.splitlines()[-1]


def test_unknown_head(distilled, config_file, tmp_path):
    arguments = (config_file, distilled[1], tmp_path / 'out')
    done = run(*arguments, '--program', '--heads', 'clip')
    assert done.returncode == 2
    assert "into a teacher 'clip'" in done.stderr.splitlines()[-1]
    assert not (tmp_path / 'out').exists()
