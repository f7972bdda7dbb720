import json

import pytest

from projects.micro_lab.paper_rows import METRICS, STUDENTS, TABLES, UNTRAINED, Row, all_rows
from projects.micro_lab.report import (
    DETECTOR,
    PROBES,
    ZERO_SHOT,
    answers,
    difference,
    order_table,
    spread,
    student_table,
    task_table,
    write_report,
)
from projects.micro_lab.results import Results, collect

SEEDS = ['3', '5']


@pytest.fixture
def results():
    """Made-up results of every run, higher by four with the second seed."""
    decoders = {
        key: {
            seed: dict(zip(METRICS, (50 + up, 30 + up, 40 + up, 80 + up), strict=True))
            for seed, up in zip(SEEDS, (0.0, 4.0), strict=True)
        }
        for key in all_rows()
    }
    students = {
        name: {
            seed: {**dict.fromkeys(PROBES, up / 10), 'accuracy': 0.5 + up / 10, 'gap_own': 2.0}
            for seed, up in zip(SEEDS, (0.0, 4.0), strict=True)
        }
        for name in (UNTRAINED, *STUDENTS)
    }
    teachers = {'zero-shot': dict(accuracy=0.9, ap=0.6), 'clip': dict.fromkeys(PROBES, 0.7)}
    return Results(teachers, students, decoders)


def cells_of(table, name):
    (line,) = [x for x in table.splitlines() if x.startswith(f'| {name} ')]
    return [cell.strip() for cell in line.split('|')[2:-1]]


def test_spread():
    assert spread([1.0, 2.0, 4.0], 2) == '2.33 ± 1.50'
    assert spread([3.14159], 3) == '3.142'
    assert spread([]) == ''


def test_differences_by_hand():
    low = {str(s): dict(m=v) for s, v in enumerate((0.1, 0.2, 0.3))}
    high = {str(s): dict(m=v) for s, v in enumerate((0.2, 0.4, 0.6))}
    assert difference(high, low, 'm') == '+0.200 (+0.100 to +0.300)'
    assert difference(low, high, 'm') == '-0.200 (-0.300 to -0.100)'
    high['1'] = dict(m=0.1)
    assert difference(high, low, 'm') == 'nothing beyond the spread of seeds (-0.100 to +0.300)'
    del high['0']
    assert difference(high, low, 'm') == 'not yet known (2 of 3 seeds)'


def test_answers_name_every_metric(results):
    text = answers(results)
    assert all(title in text for title in (*PROBES.values(), *DETECTOR.values()))
    # five pairs about unification, five about the gap
    assert text.count(ZERO_SHOT['accuracy']) == 10
    assert f'* {STUDENTS["kpu"]} over the {UNTRAINED}. ' in text


def test_task_table(results):
    rows = TABLES['Table 1: KPU and its teachers']
    table = task_table(results, rows)
    assert len(table.splitlines()) == 2 + len(rows)
    assert cells_of(table, 'CLIP') == [
        '52.0 ± 2.0 (41.5)',
        '32.0 ± 2.0 (33.4)',
        '42.0 ± 2.0 (38.0)',
        '82.0 ± 2.0 (75.1)',
    ]
    del results.decoders[rows[0].key]['5']
    assert cells_of(task_table(results, rows), 'CLIP')[0] == '50.0 (41.5)'


def test_order_table():
    """Three rows: one that all seeds put where the paper has it, two that
    change places with the seed."""
    a, b, c = (
        Row(name, (value,) * 4, name) for name, value in (('a', 3.0), ('b', 2.0), ('c', 1.0))
    )
    decoders = {name: {} for name in 'abc'}
    for seed, values in zip(SEEDS, ((30, 9, 5), (20, 4, 8)), strict=True):
        for name, value in zip('abc', values, strict=True):
            decoders[name][seed] = dict.fromkeys(METRICS, value) | {'mIoU': -value}
    table = order_table(Results({}, {}, decoders), (a, b, c))
    assert cells_of(table, 'top-1') == ['2', '0', '1']
    assert cells_of(table, 'mIoU') == ['0', '2', '1']


def test_student_table(results):
    table = student_table(results, [UNTRAINED, 'kpu'], ZERO_SHOT)
    assert cells_of(table, 'KPU') == ['0.700 ± 0.200', '', '2.000 ± 0.000', '']


def test_a_student_without_scores_has_no_row(results):
    results.students['kpu'].clear()
    table = student_table(results, [UNTRAINED, 'kpu', 'base-b'], PROBES)
    assert f'| {STUDENTS["kpu"]} ' not in table
    assert len(table.splitlines()) == 4


def test_report_is_rebuilt_from_its_results(results, tmp_path):
    text = write_report(results, tmp_path).read_text()
    for title in TABLES:
        assert f'## {title}' in text
    pictures = sorted(p.name for p in tmp_path.glob('*.png'))
    assert pictures == ['figure_3.png'] + [f'table_{i}.png' for i in range(3)]
    assert all(f'({name})' in text for name in pictures)
    again = Results.read(tmp_path / 'results.json')
    assert again == results
    assert write_report(again, tmp_path).read_text() == text
    again.decoders['tasks_clip'].clear()
    text = write_report(again, tmp_path).read_text()
    assert 'Table 1' not in text and 'Table 2' in text


def test_collects_what_is_finished(tmp_path):
    def run_of(name, seed):
        return tmp_path / f'seed_{seed}' / name

    def finish(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'done.json').write_text('{}')

    teachers = tmp_path / 'teachers'
    teachers.mkdir()
    (teachers / 'scores.json').write_text('{"clip": {"top1_200": 0.5}}')
    finish(run_of('kpu', 0) / 'evaluated')
    (run_of('kpu', 0) / 'scores.json').write_text('{"ap": 0.25}')
    run = run_of('tasks_kpu', 1)
    logs = run / '20260101_000000' / 'vis_data'
    logs.mkdir(parents=True)
    last = {METRICS['mIoU']: 50, METRICS['top-1']: 80}
    last |= {METRICS['mask AP']: 0.3, METRICS['box AP']: 0.4}
    lines = [dict(step=1, loss=2.0), dict(step=9, **last)]
    (logs / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    found = collect(run_of, teachers, [0, 1])
    assert found.teachers == {'clip': {'top1_200': 0.5}}
    assert found.students['kpu'] == {'0': {'ap': 0.25}} and not found.students['base-b']
    detected = run_of('kpu', 0) / 'detected'
    finish(detected)
    (detected / 'scores.json').write_text('{"box_ap_200": 0.5}')
    both = {'0': {'ap': 0.25, 'box_ap_200': 0.5}}
    assert collect(run_of, teachers, [0, 1]).students['kpu'] == both
    assert not found.decoders['tasks_kpu']
    finish(run)
    found = collect(run_of, teachers, [0, 1])
    assert found.decoders['tasks_kpu']['1'] == pytest.approx(
        {'mIoU': 50, 'mask AP': 30, 'box AP': 40, 'top-1': 80}
    )
