import json

import pytest

from projects.micro_lab.paper_rows import METRICS, TABLES, Row, all_rows
from projects.micro_lab.report import (
    order_table,
    spread,
    task_table,
    write_report,
    zero_shot_table,
    zero_shot_values,
)

SEEDS = [3, 5]


def write_run(run, step_values):
    """A run's log: one line a step, the metrics at the last."""
    logs = run / '20260101_000000' / 'vis_data'
    logs.mkdir(parents=True)
    lines = [json.dumps(dict(step=1, loss=2.0))]
    lines += [json.dumps(dict(step=s, **v)) for s, v in step_values.items()]
    (logs / 'scalars.json').write_text('\n'.join(lines))
    finish(run)


def finish(run):
    """Mark a job as done."""
    run.mkdir(parents=True, exist_ok=True)
    (run / 'done.json').write_text('{}')


@pytest.fixture
def run_of(tmp_path):
    """Made-up results of every run, higher by four with the second seed."""

    def folder(name, seed):
        return tmp_path / f'seed_{seed}' / name

    for seed, offset in zip(SEEDS, (0.0, 4.0), strict=True):
        for key, row in all_rows().items():
            values = {
                METRICS['mIoU']: 50 + offset,
                METRICS['top-1']: 80 + offset,
                METRICS['mask AP']: (30 + offset) / 100,
                METRICS['box AP']: (40 + offset) / 100,
            }
            write_run(folder(key, seed), {9: values})
            if row.distilled and not folder(row.distilled, seed).exists():
                scores = dict(accuracy=0.5 + offset / 10, gap_own=2.0)
                folder(row.distilled, seed).mkdir(parents=True)
                path = folder(row.distilled, seed) / 'zero_shot.json'
                path.write_text(json.dumps(scores))
                finish(folder(row.distilled, seed) / 'evaluated')
    return folder


@pytest.fixture
def teachers(tmp_path):
    folder = tmp_path / 'teachers'
    folder.mkdir()
    scores = dict(accuracy=0.9, ap=0.6)
    (folder / 'zero_shot.json').write_text(json.dumps(scores))
    return folder


def test_spread():
    assert spread([1.0, 2.0, 4.0], 2) == '2.33 ± 1.50'
    assert spread([3.14159], 3) == '3.142'
    assert spread([]) == ''


def test_task_table(run_of):
    rows = TABLES['Table 1: KPU and its teachers']
    lines = task_table(run_of, rows, SEEDS).splitlines()
    assert len(lines) == 2 + len(rows)
    cells = [cell.strip() for cell in lines[2].split('|')[1:-1]]
    assert cells == [
        'CLIP',
        '52.0 ± 2.0 (41.5)',
        '32.0 ± 2.0 (33.4)',
        '42.0 ± 2.0 (38.0)',
        '82.0 ± 2.0 (75.1)',
    ]


def cells_of(table, name):
    (line,) = [x for x in table.splitlines() if x.startswith(f'| {name} ')]
    return [cell.strip() for cell in line.split('|')[2:-1]]


def test_order_table(run_of):
    """Three rows: one that all seeds put where the paper has it, two that
    change places with the seed."""
    a, b, c = (
        Row(name, (value,) * 4, name) for name, value in (('a', 3.0), ('b', 2.0), ('c', 1.0))
    )
    for seed, values in zip(SEEDS, ((30, 9, 5), (20, 4, 8)), strict=True):
        for row, value in zip((a, b, c), values, strict=True):
            scores = dict.fromkeys(METRICS.values(), value)
            scores[METRICS['mIoU']] = -value
            write_run(run_of(row.key, seed), {9: scores})
    table = order_table(run_of, (a, b, c), SEEDS)
    assert cells_of(table, 'top-1') == ['2', '0', '1']
    assert cells_of(table, 'mIoU') == ['0', '2', '1']


def test_counts_only_finished_runs(run_of, teachers, tmp_path):
    rows = TABLES['Table 1: KPU and its teachers']
    # One row lacks the second seed, then all rows lack both.
    (run_of(rows[0].key, SEEDS[1]) / 'done.json').unlink()
    table = task_table(run_of, rows, SEEDS)
    assert cells_of(table, 'CLIP')[0] == '50.0 (41.5)'
    assert cells_of(table, 'DINOv2')[0] == '52.0 ± 2.0 (53.2)'
    for row in rows:
        for seed in SEEDS:
            (run_of(row.key, seed) / 'done.json').unlink(missing_ok=True)
    assert cells_of(task_table(run_of, rows, SEEDS), 'CLIP')[0] == '(41.5)'
    write_report(run_of, teachers, SEEDS, tmp_path)


def test_zero_shot_table(run_of, teachers):
    table = zero_shot_table(zero_shot_values(run_of, teachers, SEEDS))
    assert cells_of(table, 'kpu') == ['0.700 ± 0.200', '', '2.000 ± 0.000', '']
    assert cells_of(table, 'teachers') == ['0.900', '0.600', '', '']


def test_report(run_of, teachers, tmp_path):
    path = write_report(run_of, teachers, SEEDS, tmp_path)
    text = path.read_text()
    for title in TABLES:
        assert f'## {title}' in text
    pictures = sorted(p.name for p in tmp_path.glob('*.png'))
    assert pictures == ['figure_3.png', 'figure_4.png', 'table_1.png', 'table_2.png', 'table_3.png']
    assert all(f'({name})' in text for name in pictures)
