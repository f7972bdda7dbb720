"""The report of a reproduction: our figures beside the published ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from judge import read_log
from matplotlib.figure import Figure
from paper_rows import GAP_PUBLISHED, METRICS, TABLES, Row, all_rows

from kpu_mm.analysis.report import markdown_table
from kpu_mm.visualization.charts import bars

# folder of a training by its name and seed
RunOf = Callable[[str, int], Path]
Values = dict[str, list[float]]


def task_scores(run_of: RunOf, row: Row, seeds: Sequence[int]) -> Values:
    """Each metric of a row, one value a seed, in percent.

    Args:
        run_of: Folders of the trainings.
        row: The row.
        seeds: The seeds.
    """
    values: Values = {name: [] for name in METRICS}
    for seed in seeds:
        last = read_log(run_of(row.key, seed))[-1]
        for name, key in METRICS.items():
            factor = 100 if name.endswith('AP') else 1
            values[name].append(factor * last[key])
    return values


def zero_shot_scores(run_of: RunOf, name: str, seeds: Sequence[int]) -> Values:
    """What judge.py found of a student, one value a seed.

    Args:
        run_of: Folders of the trainings.
        name: The student.
        seeds: The seeds.
    """
    values: Values = {}
    for seed in seeds:
        path = run_of(name, seed) / 'zero_shot.json'
        for key, value in json.loads(path.read_text()).items():
            values.setdefault(key, []).append(value)
    return values


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean and, of several values, half their range."""
    if not values:
        return ''
    mean = f'{np.mean(values):.{digits}f}'
    if len(values) == 1:
        return mean
    return f'{mean} ± {np.ptp(values) / 2:.{digits}f}'


def task_table(run_of: RunOf, rows: Sequence[Row], seeds: list[int]) -> str:
    """A table of the paper, published figures in brackets."""
    lines = []
    for row in rows:
        found = task_scores(run_of, row, seeds)
        cells = [spread(found[name]) for name in METRICS]
        for i, published in enumerate(row.published):
            cells[i] += f' ({published})'
        lines.append([row.name, *cells])
    return markdown_table(['', *METRICS], lines)


def zero_shot_table(run_of: RunOf, seeds: list[int]) -> str:
    """Zero-shot scores and teachers' gap of every student."""
    names = dict.fromkeys(
        row.distilled for row in all_rows().values() if row.distilled
    )
    columns = ('accuracy', 'ap', 'gap_own', 'gap_unified')
    lines = []
    for name in names:
        found = zero_shot_scores(run_of, name, seeds)
        lines.append([name, *(spread(found.get(c, ()), 3) for c in columns)])
    titles = ['top-1', 'AP', 'gap, own spaces', 'gap, unified']
    return markdown_table(['student', *titles], lines)


def draw(
    run_of: RunOf, rows: Sequence[Row], seeds: list[int], path: Path
) -> None:
    """Bars of a table's means.

    Args:
        run_of: Folders of the trainings.
        rows: The table's rows.
        seeds: The seeds.
        path: PNG file.
    """
    figure = Figure(figsize=(8, 3.5), layout='constrained')
    axis = figure.subplots()
    found = {row.name: task_scores(run_of, row, seeds) for row in rows}
    bars(
        axis,
        {
            metric: {
                name: float(np.mean(v[metric])) for name, v in found.items()
            }
            for metric in METRICS
        },
    )
    figure.savefig(path, dpi=120)


def write_report(run_of: RunOf, seeds: list[int], folder: Path) -> Path:
    """Write report.md and a picture for each table.

    Args:
        run_of: Folders of the trainings.
        seeds: The seeds.
        folder: Where to.

    Returns:
        The report.
    """
    text = [
        '# KPU on digit scenes',
        f'Seeds {", ".join(map(str, seeds))}: means and half the range; in '
        "brackets the paper's figures on ADE20K, COCO and ImageNet.",
    ]
    for title, rows in TABLES.items():
        name = title.split(':')[0].lower().replace(' ', '_')
        draw(run_of, rows, seeds, folder / f'{name}.png')
        text += [f'## {title}', task_table(run_of, rows, seeds)]
        text += [f'![{title}]({name}.png)']
    own, unified = GAP_PUBLISHED
    text += [
        "## Figure 3 and the teachers' gap",
        zero_shot_table(run_of, seeds),
        f'The paper: a gap of {own} in their own spaces, {unified} unified.',
    ]
    path = folder / 'report.md'
    path.write_text('\n\n'.join(text) + '\n')
    return path
