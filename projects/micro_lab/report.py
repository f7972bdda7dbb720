"""The report of a reproduction, with the published figures beside ours.

    python -m projects.micro_lab.report projects/micro_lab/docs/results.json

writes the report and the figures beside results.json anew, without any run.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from kpu_mm.analysis.report import bars, markdown_table, panels

from .evaluate import LABELS
from .paper_rows import GAP_PUBLISHED, METRICS, STUDENTS, TABLES, UNTRAINED, Row
from .results import Results, Seeds

PROBES = {
    f'{key}_{labels}': f'{title}, {labels} labels'
    for labels in LABELS
    for key, title in (('top1', 'top-1'), ('miou', 'mIoU'))
}
DETECTOR = {f'box_ap_{labels}': f'box AP, {labels} labels' for labels in LABELS}
ZERO_SHOT = {
    'accuracy': 'zero-shot top-1',
    'ap': 'zero-shot AP',
    'gap_own': 'gap, own spaces',
    'gap_unified': 'gap, unified',
}
# Fewer seeds show no spread.
_ENOUGH_SEEDS = 3


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Format the mean and, for several values, half of their range.

    Args:
        values: The values.
        digits: Digits after the point. Defaults to 1.
    """
    if not values:
        return ''
    mean = f'{np.mean(values):.{digits}f}'
    if len(values) == 1:
        return mean
    return f'{mean} ± {np.ptp(values) / 2:.{digits}f}'


def difference(first: Seeds, second: Seeds, metric: str) -> str:
    """Say in a clause how two models differ in a metric.

    Args:
        first: Scores of one by seed.
        second: Scores of the other by seed.
        metric: The metric, a share.
    """
    common = [s for s in first if metric in first[s] and metric in second.get(s, {})]
    if len(common) < _ENOUGH_SEEDS:
        return f'not yet known ({len(common)} of {_ENOUGH_SEEDS} seeds)'
    found = [first[s][metric] - second[s][metric] for s in common]
    low, high = f'{min(found):+.3f}', f'{max(found):+.3f}'
    if min(found) <= 0 <= max(found):
        return f'nothing beyond the spread of seeds ({low} to {high})'
    return f'{np.mean(found):+.3f} ({low} to {high})'


# Each question with the metrics and the pairs of students that answer it.
DETECTION = 'What does distilling add to an adapter, for a linear detector on frozen features?'
_SHOTS = {key: ZERO_SHOT[key] for key in ('accuracy', 'ap')}
QUESTIONS: dict[str, tuple[Mapping[str, str], tuple[tuple[str, str], ...]]] = {
    'What does distilling add to an adapter, for linear probes on frozen features?': (
        PROBES,
        tuple((name, UNTRAINED) for name in ('kpu', 'kpu_weak', 'kpu_one-sided', 'base-b')),
    ),
    DETECTION: (DETECTOR, tuple((name, UNTRAINED) for name in ('base-b', 'kpu_weak'))),
    'What does unification add to s2t alone?': (
        _SHOTS | PROBES,
        (
            ('kpu', 'base-b'),
            ('kpu_weak', 'base-b'),
            ('kpu_one-sided', 'base-b'),
            ('kpu_gap-33', 'base-b_gap-33'),
            ('kpu_weak_gap-33', 'base-b_gap-33'),
        ),
    ),
    'What does unification add to s2t alone, for a linear detector?': (
        DETECTOR,
        (('kpu_weak', 'base-b'),),
    ),
    'What does a gap of 33 cost, and what wins it back?': (
        _SHOTS,
        (
            ('base-b_gap-33', 'base-b'),
            ('kpu_gap-33', 'kpu'),
            ('kpu_weak_gap-33', 'kpu_weak'),
            ('famo_gap-33', 'kpu_gap-33'),
            ('phi-s_gap-33', 'base-b_gap-33'),
        ),
    ),
}


# Students that need all seeds.
COMPARED = {name for _, pairs in QUESTIONS.values() for pair in pairs for name in pair}
# Students whose features a detector is trained on, with all seeds.
DETECTED = {name for pair in QUESTIONS[DETECTION][1] for name in pair}


def answers(results: Results) -> str:
    """The questions of the lab, answered by the scores."""
    scores = results.students
    names = STUDENTS | {UNTRAINED: f'the {UNTRAINED}'}
    text = []
    for question, (metrics, pairs) in QUESTIONS.items():
        text.append(f'{question}\n')
        for first, second in pairs:
            parts = [
                f'{title}: {difference(scores[first], scores[second], key)}'
                for key, title in metrics.items()
            ]
            text.append(f'* {names[first]} over {names[second]}. {"; ".join(parts)}.')
        text.append('')
    return '\n'.join(text).rstrip()


def student_table(results: Results, names: Sequence[str], columns: Mapping[str, str]) -> str:
    """Return scores of the students that have any, means over seeds.

    Args:
        results: All scores.
        names: The students.
        columns: Titles of the metrics.
    """
    lines = []
    for name in names:
        seeds = results.students[name].values()
        cells = [spread([s[c] for s in seeds if c in s], 3) for c in columns]
        if any(cells):
            lines.append([STUDENTS.get(name, name), *cells])
    return markdown_table(['', *columns.values()], lines)


def teacher_table(results: Results) -> str:
    """Return probes of the teachers and of the sentinel."""
    lines = [
        [name, *(f'{scores[c]:.3f}' for c in PROBES)]
        for name, scores in results.teachers.items()
        if name != 'zero-shot'
    ]
    return markdown_table(['', *PROBES.values()], lines)


def task_scores(results: Results, row: Row, metric: str) -> list[float]:
    """Return a metric of a row, one value per finished seed.

    Args:
        results: All scores.
        row: The row.
        metric: One of METRICS.
    """
    return [scores[metric] for scores in results.decoders.get(row.key, {}).values()]


def task_table(results: Results, rows: Sequence[Row]) -> str:
    """Return a table of the paper, with published figures in brackets.

    Args:
        results: All scores.
        rows: Rows of the table.
    """
    lines = []
    for row in rows:
        cells = [spread(task_scores(results, row, name)) for name in METRICS]
        for i, published in enumerate(row.published):
            cells[i] += f' ({published})'
        lines.append([row.name, *cells])
    return markdown_table(['', *METRICS], lines)


def order_table(results: Results, rows: Sequence[Row]) -> str:
    """Return how many pairs of rows have the published order, by metric.

    Args:
        results: All scores.
        rows: Rows of the table.
    """
    known = [row for row in rows if row.published]
    scores = [results.decoders.get(row.key, {}) for row in known]
    # A pair is compared with the seeds that all rows have.
    common = set.intersection(*(set(s) for s in scores))
    lines = []
    for i, metric in enumerate(METRICS):
        counts = {True: 0, False: 0, None: 0}
        for a, b in combinations(range(len(known)), 2):
            # Equal published figures have no order.
            published = known[a].published[i] - known[b].published[i]
            if published and common:
                ours = [scores[a][s][metric] - scores[b][s][metric] for s in common]
                counts[_same_order(published * np.array(ours))] += 1
        lines.append([metric, counts[True], counts[False], counts[None]])
    titles = ['as published', 'opposite', 'seeds differ']
    return markdown_table(['pairs of rows', *titles], lines)


def _same_order(products: np.ndarray) -> bool | None:
    """True if all seeds agree, False if none does, None if some do."""
    if (products > 0).all():
        return True
    return False if (products < 0).all() else None


def draw_zero_shot(results: Results, path: Path) -> None:
    """Draw accuracies and APs as bars.

    Args:
        results: All scores.
        path: PNG file to write.
    """
    figure, axes = panels(1, 2, (7, 4))
    for axis, key in zip(axes[0], ('accuracy', 'ap'), strict=True):
        groups = {'teachers': {key: results.teachers['zero-shot'][key]}}
        for name, seeds in results.students.items():
            values = [s[key] for s in seeds.values() if key in s]
            if values:
                groups[name] = {key: float(np.mean(values))}
        bars(axis, groups)
        axis.set_title(ZERO_SHOT[key])
        axis.tick_params('x', labelrotation=90)
    figure.savefig(path, dpi=100)


def draw(results: Results, rows: Sequence[Row], path: Path) -> None:
    """Draw the means of a table as bars.

    Args:
        results: All scores.
        rows: Rows of the table.
        path: PNG file to write.
    """
    figure, axes = panels(1, 1, (8, 3.5))
    groups = {
        metric: {
            row.name: float(np.mean(values))
            for row in rows
            if (values := task_scores(results, row, metric))
        }
        for metric in METRICS
    }
    bars(axes[0, 0], groups)
    figure.savefig(path, dpi=100)


def write_report(results: Results, folder: Path) -> Path:
    """Write results.json, report.md and the pictures.

    Args:
        results: All scores.
        folder: The folder to write.

    Returns:
        The path of the report.
    """
    results.write(folder / 'results.json')
    natural = [name for name in STUDENTS if 'gap' not in name]
    gap = [name for name in STUDENTS if 'gap' in name]
    own, unified = GAP_PUBLISHED
    text = [
        '# KPU on digit scenes',
        answers(results),
        'All values are means over seeds and half the range of seeds; without a range there is '
        "one seed. In brackets are the paper's figures on ADE20K, COCO and ImageNet.",
        "## Linear probes on frozen features\n\nThey stand for decoders in the paper's Table 3 "
        '(subsets of teachers) and Figure 4 (balancing the teachers).',
        student_table(results, [UNTRAINED, *natural], PROBES),
        '## A linear detector on frozen features',
        student_table(results, [n for n in (UNTRAINED, *STUDENTS) if n in DETECTED], DETECTOR),
        "## What the teachers know and the sentinel does not\n\nLinear probes on each model's "
        'own features.',
        teacher_table(results),
        "## Figure 3 and the teachers' gap",
        student_table(results, natural, ZERO_SHOT),
        f'The paper: a gap of {own} in their own spaces, {unified} unified.',
        '![Zero-shot scores](figure_3.png)',
    ]
    draw_zero_shot(results, folder / 'figure_3.png')
    if any(results.students[name] for name in gap):
        text += ['## A gap of 33', student_table(results, gap, {**ZERO_SHOT, **PROBES})]
    for title, rows in TABLES.items():
        name = title.split(':')[0].lower().replace(' ', '_')
        if not all(results.decoders.get(row.key) for row in rows):
            continue  # until each row has a seed
        text += [f'## {title}', task_table(results, rows)]
        if any(row.published for row in rows):
            text += [order_table(results, rows)]
        draw(results, rows, folder / f'{name}.png')
        text += [f'![{title}]({name}.png)']
    path = folder / 'report.md'
    path.write_text('\n\n'.join(text) + '\n')
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('results', type=Path, help='results.json')
    path = parser.parse_args().results
    print('Report:', write_report(Results.read(path), path.parent))


if __name__ == '__main__':
    main()
