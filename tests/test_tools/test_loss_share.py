import json

import pytest

from tests.runs import losses_of, refusal_of, run_tool

TOOL = 'analysis_tools/loss_share.py'
CONFIG = "model = dict(type='kpu_mm.KPUDistiller', terms=dict(s2t=1.0))\n"


@pytest.fixture
def run(tmp_path):
    """Made-up logs of ten iterations of two teachers."""

    def write(name, weights):
        folder = tmp_path / name / '1' / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'config.py').write_text(CONFIG)
        rows = [{'step': i, 's2t/a': 3.0, 's2t/b': 1.0, **weights} for i in range(10)]
        lines = ''.join(json.dumps(row) + '\n' for row in rows)
        (folder / 'scalars.json').write_text(lines)
        return tmp_path / name

    return write


def test_two_runs(run, tmp_path):
    equal, tuned = run('equal', {}), run('x', {'weight/a': 1, 'weight/b': 3})
    out = tmp_path / 'out'
    done = run_tool(TOOL, equal, f'tuned={tuned}', '--out', out)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / 'loss_share.json').read_text())
    shares = {n: r['teachers']['a']['last'] for n, r in report.items()}
    assert shares == dict(equal=0.75, tuned=0.5)
    assert report['tuned']['weights']['b']['values'] == [3] * 10
    assert (out / 'loss_share.md').read_text() in done.stdout
    assert (out / 'loss_share.png').stat().st_size > 5000


def test_one_sentence(run, tmp_path, monkeypatch, capsys):
    path = run('a', {})
    for arguments, sentence in (
        ([tmp_path / 'none'], 'holds no scalars.json'),
        ([path, path], 'two runs are named a'),
    ):
        assert sentence in refusal_of(TOOL, arguments, monkeypatch, capsys)


@pytest.mark.slow
def test_what_training_logs(run_config, tmp_path):
    work_dir = tmp_path / 'work'
    done = run_tool(
        'train.py', run_config, '--work-dir', work_dir, '--cfg-options', 'train_cfg.max_iters=3'
    )
    assert done.returncode == 0, done.stderr
    done = run_tool(TOOL, f'it={work_dir}', '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'loss_share.json').read_text())['it']
    assert report['steps'] == [1, 2, 3]
    for step, row in losses_of(work_dir).items():
        own = [row[f'{term}/dino'] for term in ('s2t', 't2s', 'rec')]
        other = [row[f'{term}/coarse'] for term in ('s2t', 't2s', 'rec')]
        found = report['teachers']['dino']['values'][step - 1]
        assert found == pytest.approx(sum(own) / sum(own + other))
