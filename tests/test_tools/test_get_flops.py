import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'get_flops.py'
# no weights of the paper's models here, and nothing is fetched
ENV = dict(os.environ, PYTHONPATH=str(ROOT), HF_HUB_OFFLINE='1')


def run(*arguments, **env):
    return subprocess.run(
        [sys.executable, TOOL, *map(str, arguments)],
        env={**ENV, **env},
        capture_output=True,
        text=True,
    )


def test_the_paper_s_student(tmp_path):
    config = ROOT / 'configs' / 'distill' / 'kpu_vitb.py'
    out = tmp_path / 'cost.json'
    done = run(config, '--random', '--shape', 64, 64, '--out', out)
    assert done.returncode == 0, done.stderr
    assert '13.68 M' in done.stdout and '100.26 M' in done.stdout
    student = json.loads(out.read_text())['student']
    assert student['trained'] == 13_680_608
    assert student['frozen'] == 86_580_480


def test_with_teachers_and_projectors(distilled, tmp_path):
    config, _, model = distilled
    path, out = tmp_path / 'config.py', tmp_path / 'cost.json'
    path.write_text(f'model = {config!r}\n')
    done = run(path, '--out', out, '--shape', 70, 64)
    assert done.returncode == 0, done.stderr
    cost = json.loads(out.read_text())
    for term in ('s2t', 't2s', 'rec'):
        expected = sum(
            p.numel() for link in model.links.values() for p in getattr(link, term).parameters()
        )
        assert cost[f'projectors: {term}']['trained'] == expected
    teacher = cost['teacher: other']
    assert teacher['trained'] == 0 and teacher['flops'] > 0


def test_one_sentence_without_weights(tmp_path):
    config = ROOT / 'configs' / 'distill' / 'kpu_vitb.py'
    done = run(config, HF_HOME=str(tmp_path))
    assert done.returncode == 2
    assert '--random' in done.stderr.splitlines()[-1]
    assert 'Traceback' not in done.stderr
