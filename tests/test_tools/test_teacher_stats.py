import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import DATASET, write_images

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'teacher_stats.py'
ENV = dict(os.environ, PYTHONPATH=str(ROOT))


def run(*arguments):
    return subprocess.run(
        [sys.executable, TOOL, *map(str, arguments)],
        env=ENV,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def config_file(distilled, tmp_path):
    write_images(tmp_path / 'images')
    dataset = DATASET.format(root=str(tmp_path / 'images'))
    stream = f'dict(batch_size=4, num_workers=0, dataset={dataset})'
    path = tmp_path / 'config.py'
    path.write_text(
        f'model = {distilled[0]!r}\n'
        f'train_dataloader = dict(teacher={stream}, other={stream})\n'
    )
    return path


def test_table_and_file(config_file, tmp_path):
    out = tmp_path / 'stats.json'
    done = run(config_file, '--num-images', 6, '--out', out)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert 'unified' not in report
    teachers = report['teachers']['teachers']
    assert set(teachers) == {'teacher', 'other'}
    stds = [teachers[name]['all maps']['std'] for name in teachers]
    ratio = report['teachers']['ratios']['all maps']
    assert ratio == pytest.approx(max(stds) / min(stds), rel=1e-5)
    assert f'{ratio:.2f}' in done.stdout


def test_after_unification(distilled, config_file, tmp_path):
    out = tmp_path / 'stats.json'
    done = run(
        config_file,
        *('--num-images', 4, '--out', out, '--checkpoint', distilled[1]),
    )
    assert done.returncode == 0, done.stderr
    unified = json.loads(out.read_text())['unified']
    for name, levels in distilled[2].pairs.items():
        assert f'map {len(levels) - 1}' in unified['teachers'][name]
        assert 'summary' in unified['teachers'][name]


def test_one_sentence_without_streams(distilled, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f'model = {distilled[0]!r}\n')
    done = run(path)
    assert done.returncode == 2
    assert 'stream of its name' in done.stderr.splitlines()[-1]
