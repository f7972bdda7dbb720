import json

from tests.runs import run_tool

TOOL = 'analysis_tools/resolution_sweep.py'


def test_table_and_files(distilled, distilled_run, tmp_path):
    done = run_tool(
        TOOL,
        *(distilled_run, distilled[1], '--num-images', 4),
        *('--sizes', 56, 84, '--reference', 70, '--out', tmp_path),
        *('--images', distilled_run.parent / 'images'),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'resolution_sweep.json').read_text())
    assert report['reference'] == 70
    for outputs in (report['student'], *report['teachers'].values()):
        for sizes in outputs.values():
            assert list(sizes) == ['56', '70', '84']
    assert set(report['teachers']) == {'teacher', 'other'}
    assert report['student']['summary']['70']['mse'] == 0
    assert (tmp_path / 'resolution_sweep.md').read_text() in done.stdout
    assert (tmp_path / 'resolution_sweep.png').stat().st_size > 5000
