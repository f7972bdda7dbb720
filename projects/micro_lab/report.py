"""The report of a reproduction, with the published figures beside ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from kpu_mm.analysis.report import bars, markdown_table, panels

from .evaluate import read_log
from .paper_rows import GAP_PUBLISHED, METRICS, TABLES, Row, all_rows

# From the name and seed of a training to its folder.
RunOf = Callable[[str, int], Path]
# Values of each metric, one per finished seed.
Values = dict[str, list[float]]


def finished(run_of: RunOf, name: str, seeds: Sequence[int]) -> list[int]:
    """Return the seeds with which a training is finished.

    Args:
        run_of: Folders of the trainings.
        name: Name of the training.
        seeds: All seeds.
    """
    return [s for s in seeds if (run_of(name, s) / 'done.json').is_file()]


def task_scores(run_of: RunOf, row: Row, seeds: Sequence[int]) -> Values:
    """Return each metric of a row in percent.

    Args:
        run_of: Folders of the trainings.
        row: The row.
        seeds: All seeds.
    """
    values: Values = {name: [] for name in METRICS}
    for seed in finished(run_of, row.key, seeds):
        last = read_log(run_of(row.key, seed))[-1]
        for name, key in METRICS.items():
            # COCO gives AP as a share, the others give percent.
            factor = 100 if name.endswith('AP') else 1
            values[name].append(factor * last[key])
    return values


def zero_shot_scores(run_of: RunOf, name: str, seeds: Sequence[int]) -> Values:
    """Return the scores that evaluate.py wrote for a student.

    Args:
        run_of: Folders of the trainings.
        name: Name of the student.
        seeds: All seeds.
    """
    values: Values = {}
    for seed in finished(run_of, f'{name}/evaluated', seeds):
        path = run_of(name, seed) / 'zero_shot.json'
        for key, value in json.loads(path.read_text()).items():
            values.setdefault(key, []).append(value)
    return values


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


def task_table(run_of: RunOf, rows: Sequence[Row], seeds: list[int]) -> str:
    """Return a table of the paper, with published figures in brackets.

    Args:
        run_of: Folders of the trainings.
        rows: Rows of the table.
        seeds: All seeds.
    """
    lines = []
    for row in rows:
        found = task_scores(run_of, row, seeds)
        cells = [spread(found[name]) for name in METRICS]
        for i, published in enumerate(row.published):
            cells[i] += f' ({published})'
        lines.append([row.name, *cells])
    return markdown_table(['', *METRICS], lines)


def order_table(run_of: RunOf, rows: Sequence[Row], seeds: list[int]) -> str:
    """Return how many pairs of rows have the published order, by metric.

    Args:
        run_of: Folders of the trainings.
        rows: Rows of the table.
        seeds: All seeds.
    """
    known = [row for row in rows if row.published]
    # A pair is compared with the seeds that all rows have.
    common = set(seeds)
    for row in known:
        common &= set(finished(run_of, row.key, seeds))
    both = sorted(common)
    found = {row.name: task_scores(run_of, row, both) for row in known}
    lines = []
    for i, metric in enumerate(METRICS):
        counts = {True: 0, False: 0, None: 0}
        for a, b in combinations(known, 2):
            # Equal published figures have no order.
            published = a.published[i] - b.published[i]
            if published and both:
                ours = np.subtract(found[a.name][metric], found[b.name][metric])
                counts[_same_order(published * ours)] += 1
        lines.append([metric, counts[True], counts[False], counts[None]])
    titles = ['as published', 'opposite', 'seeds differ']
    return markdown_table(['pairs of rows', *titles], lines)


def _same_order(products: np.ndarray) -> bool | None:
    """True if all seeds agree, False if none does, None if some do."""
    if (products > 0).all():
        return True
    return False if (products < 0).all() else None


def zero_shot_values(run_of: RunOf, teachers: Path, seeds: list[int]) -> dict[str, Values]:
    """Return zero-shot scores of the teachers and of every student.

    Args:
        run_of: Folders of the trainings.
        teachers: Folder of the teachers' scores.
        seeds: All seeds.
    """
    names = dict.fromkeys(row.distilled for row in all_rows().values() if row.distilled)
    own = json.loads((teachers / 'zero_shot.json').read_text())
    return {
        'teachers': {key: [value] for key, value in own.items()},
        **{name: zero_shot_scores(run_of, name, seeds) for name in names},
    }


def zero_shot_table(values: Mapping[str, Values]) -> str:
    """Return a table of zero-shot scores and the teachers' gap.

    Args:
        values: Scores by name of the student.
    """
    columns = {
        'accuracy': 'top-1',
        'ap': 'AP',
        'gap_own': 'gap, own spaces',
        'gap_unified': 'gap, unified',
    }
    lines = [
        [name, *(spread(found.get(c, ()), 3) for c in columns)] for name, found in values.items()
    ]
    return markdown_table(['image encoder', *columns.values()], lines)


def draw_zero_shot(values: Mapping[str, Values], path: Path) -> None:
    """Draw accuracies and APs as bars.

    Args:
        values: Scores by name of the student.
        path: PNG file to write.
    """
    figure, axes = panels(1, 2, (6, 3.5))
    titles = {'accuracy': 'zero-shot top-1', 'ap': 'zero-shot AP'}
    for axis, (key, title) in zip(axes[0], titles.items(), strict=True):
        means = {n: float(np.mean(v[key])) for n, v in values.items() if key in v}
        bars(axis, {name: {title: mean} for name, mean in means.items()})
        axis.set_title(title)
    figure.savefig(path, dpi=120)


def draw(run_of: RunOf, rows: Sequence[Row], seeds: list[int], path: Path) -> None:
    """Draw the means of a table as bars.

    Args:
        run_of: Folders of the trainings.
        rows: Rows of the table.
        seeds: All seeds.
        path: PNG file to write.
    """
    figure = Figure(figsize=(8, 3.5), layout='constrained')
    axis = figure.subplots()
    scores = {row.name: task_scores(run_of, row, seeds) for row in rows}
    found = {name: v for name, v in scores.items() if v['mIoU']}
    bars(
        axis,
        {
            metric: {name: float(np.mean(v[metric])) for name, v in found.items()}
            for metric in METRICS
        },
    )
    figure.savefig(path, dpi=120)


def write_report(run_of: RunOf, teachers: Path, seeds: list[int], folder: Path) -> Path:
    """Write report.md and a picture for each table.

    Args:
        run_of: Folders of the trainings.
        teachers: Folder of the teachers' scores.
        seeds: All seeds.
        folder: The folder to write.

    Returns:
        The path of the report.
    """
    text = [
        '# KPU on digit scenes',
        f'Seeds {", ".join(map(str, seeds))}: means and half the range, of '
        "one seed where there is no range; in brackets the paper's figures "
        'on ADE20K, COCO and ImageNet. Pairs of rows are counted over the '
        'seeds that all rows of a table have.',
    ]
    for title, rows in TABLES.items():
        name = title.split(':')[0].lower().replace(' ', '_')
        text += [f'## {title}', task_table(run_of, rows, seeds)]
        if any(row.published for row in rows):
            text += [order_table(run_of, rows, seeds)]
        if any(finished(run_of, row.key, seeds) for row in rows):
            draw(run_of, rows, seeds, folder / f'{name}.png')
            text += [f'![{title}]({name}.png)']
    values = zero_shot_values(run_of, teachers, seeds)
    draw_zero_shot(values, folder / 'figure_3.png')
    own, unified = GAP_PUBLISHED
    text += [
        "## Figure 3 and the teachers' gap",
        zero_shot_table(values),
        '![Zero-shot scores](figure_3.png)',
        f'The paper: a gap of {own} in their own spaces, {unified} unified.',
    ]
    path = folder / 'report.md'
    path.write_text('\n\n'.join(text) + '\n')
    return path
