import json

import pytest

from tests.runs import refusal_of, run_tool

TOOL = 'analysis_tools/teacher_stats.py'


def test_table_and_files(distilled_run, tmp_path):
    done = run_tool(TOOL, distilled_run, '--num-images', 6, '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'teacher_stats.json').read_text())
    assert set(report) == {'num_images', 'own'}
    teachers = report['own']['teachers']
    assert set(teachers) == {'teacher', 'other'}
    stds = [teachers[name]['all maps']['std'] for name in teachers]
    ratio = report['own']['ratios']['all maps']
    assert ratio == pytest.approx(max(stds) / min(stds), rel=1e-5)
    assert f'all maps: {ratio:.2f}' in done.stdout
    assert (tmp_path / 'teacher_stats.md').read_text() in done.stdout
    assert (tmp_path / 'teacher_stats.png').stat().st_size > 5000


def test_a_folder_that_is_not_there(distilled_run, tmp_path, monkeypatch, capsys):
    line = refusal_of(TOOL, [distilled_run, '--images', tmp_path / 'none'], monkeypatch, capsys)
    assert str(tmp_path / 'none') in line


def test_after_unification(distilled, distilled_run, tmp_path):
    done = run_tool(TOOL, *(distilled_run, distilled[1], '--num-images', 4, '--out', tmp_path))
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'teacher_stats.json').read_text())
    strides = distilled[2].student.strides
    for name, link in distilled[2].links.items():
        pairs = [link.levels.pairs[k] for k in link.unified]
        assert set(report['common']['teachers'][name]) == {
            'summary',
            'all maps',
            *(f'stride {strides[level]}' for _, level in pairs),
        }


def test_one_sentence_without_streams(distilled, tmp_path, monkeypatch, capsys):
    path = tmp_path / 'config.py'
    path.write_text(f'model = {distilled[0]!r}\n')
    line = refusal_of(TOOL, [path], monkeypatch, capsys)
    assert 'stream of its name' in line
