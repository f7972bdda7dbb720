"""Which share of the loss each teacher and each term has during training.

    python tools/analysis_tools/loss_share.py work_dirs/kpu_vitb
    python tools/analysis_tools/loss_share.py equal=RUN_DIR famo=RUN_DIR

Read from what MMEngine logs: losses such as s2t/clip, and the balancer's
weights (weight/clip) where it logs them. Several runs are put side by side.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config

from kpu_mm.analysis.report import areas, lines, markdown_table, panels, write_report
from kpu_mm.models.teacher_link import TERMS
from kpu_mm.utils.command_line import add_out_argument, positive, refuse, refusing, tool_parser
from kpu_mm.visualization import find_logs, read_log

Row = dict[str, float]


class LossShares(NamedTuple):
    """Shares over the logged iterations of a run.

    Args:
        steps: Iterations, (N,).
        teachers: By teacher, its share of the weighted loss, (N,); they sum
            to 1.
        terms: By term, likewise.
        weights: By teacher, the balancer's weight, (N,); empty for a run
            that does not log any.
        losses: By 'term/teacher' or 'term/teacher/stream', the loss as
            logged, (N,).
    """

    steps: np.ndarray
    teachers: dict[str, np.ndarray]
    terms: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    losses: dict[str, np.ndarray]


def read_run(run: str | Path) -> tuple[list[Row], dict[str, float]]:
    """Read what a run logged; a resumed run has several logs.

    Args:
        run: A work directory, or a ``scalars.json``.

    Returns:
        Logged values by iteration, and the weights of the loss terms, from
        the config next to the newest log.

    Raises:
        FileNotFoundError: If there is no log, or no config.
        ValueError: If a line is not JSON.
    """
    logs = find_logs(run)
    if not logs:
        raise FileNotFoundError(
            f"'{run}' holds no scalars.json; pass the work directory of a "
            'run that MMEngine logged (LocalVisBackend).'
        )
    rows = read_log(run)
    config = logs[-1].with_name('config.py')
    if not config.is_file():
        raise FileNotFoundError(
            f"'{config}' does not exist; MMEngine writes it next to "
            'scalars.json and the weights of the loss terms are read from it.'
        )
    terms = Config.fromfile(config).get('model', {}).get('terms')
    terms = dict(terms or dict.fromkeys(TERMS, 1.0))
    return rows, terms


def loss_shares(rows: Sequence[Row], terms: Mapping[str, float], window: int = 1) -> LossShares:
    """Compute the shares of sum_t w_t sum_k terms[k] L_k,t.

    L_k,t is logged as 'k/t', such as 's2t/clip', or for a teacher of several
    streams as 'k/t/stream', of which the mean counts; the balancer's weight
    w_t as 'weight/t'. A run that logs no weights gives all teachers the same.
    Iterations at which a value is missing are left out.

    Args:
        rows: Logged values.
        terms: Weights of the terms.
        window: Losses and weights are means over the last so many rows.
            Defaults to 1.

    Raises:
        ValueError: If no iteration has the losses.
    """
    logged = dict.fromkeys(key for row in rows for key in row)
    losses: dict[tuple[str, str], list[str]] = {}
    for key in logged:
        term, _, rest = key.partition('/')
        if term in terms and rest:
            losses.setdefault((term, rest.split('/')[0]), []).append(key)
    names = list(dict.fromkeys(name for _, name in losses))
    weights = [key for name in names if (key := f'weight/{name}') in logged]
    keys = [key for found in losses.values() for key in found]
    whole = [row for row in rows if all(k in row for k in keys + weights)]
    if not keys or not whole:
        raise ValueError(
            'the log has no iteration with losses such as s2t/NAME; pass a distillation run.'
        )
    # Smoothed before the ratio, whose mean would not be the ratio of means.
    values = {
        key: running_mean(np.array([row[key] for row in whole]), window) for key in keys + weights
    }
    parts = {
        # The streams of a teacher count the same, as in the loss.
        (term, name): terms[term]
        * np.mean([values[key] for key in found], 0)
        * values.get(f'weight/{name}', 1.0)
        for (term, name), found in losses.items()
    }
    total = np.sum(list(parts.values()), 0)

    def shares(place: int) -> dict[str, np.ndarray]:
        found: dict[str, Any] = {}
        for key, part in parts.items():
            found[key[place]] = found.get(key[place], 0) + part
        return {name: part / total for name, part in found.items()}

    return LossShares(
        np.array([row['step'] for row in whole]),
        teachers=shares(1),
        terms=shares(0),
        weights={key.partition('/')[2]: values[key] for key in weights},
        losses={key: values[key] for key in keys},
    )


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Average each value with those before it.

    Args:
        values: (N,).
        window: How many in all; fewer at the start.
    """
    starts = (max(0, end - window) for end in range(1, len(values) + 1))
    return np.array([values[a:b].mean() for b, a in enumerate(starts, start=1)])


def first_and_last(values: np.ndarray) -> tuple[float, float]:
    """Average over the first and over the last tenth of what was logged.

    Args:
        values: (N,).
    """
    n = max(1, len(values) // 10)
    return float(values[:n].mean()), float(values[-n:].mean())


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument(
        'runs', nargs='+', metavar='[NAME=]PATH', help='work directory or scalars.json of a run'
    )
    parser.add_argument(
        '--smooth',
        type=positive,
        default=1,
        metavar='N',
        help='take the mean of the last N logged iterations (default: 1)',
    )
    add_out_argument(parser)
    return parser.parse_args()


def named(runs: list[str]) -> dict[str, str]:
    """Paths by name, the last part of the path if there is none."""
    found: dict[str, str] = {}
    for run in runs:
        name, equals, path = run.partition('=')
        if not equals:
            name, path = Path(run).resolve().stem, run
        if name in found:
            refuse(f'two runs are named {name}; write NAME=PATH.')
        found[name] = path
    return found


def numbers_of(shares: LossShares) -> dict[str, Any]:
    """Every series as numbers, and its first and last tenth."""
    groups = shares._asdict()
    steps = groups.pop('steps').tolist()
    return dict(
        steps=steps,
        **{
            group: {
                name: dict(
                    zip(
                        ('first', 'last', 'values'),
                        (*first_and_last(values), values.tolist()),
                        strict=True,
                    )
                )
                for name, values in series.items()
            }
            for group, series in groups.items()
        },
    )


def table(report: dict[str, Any]) -> str:

    titles = dict(
        teachers='share of teacher',
        terms='share of term',
        weights='weight of teacher',
        losses='loss',
    )
    rows = [
        [run, f'{titles[group]} {name}', values['first'], values['last']]
        for run, numbers in report.items()
        for group in titles
        for name, values in numbers[group].items()
    ]
    return markdown_table(['run', 'what', 'first tenth', 'last tenth'], rows)


def plot(runs: dict[str, LossShares]) -> Any:
    """A column for each run: shares of teachers, of terms, and weights."""
    weighed = any(shares.weights for shares in runs.values())
    figure, axes = panels(2 + weighed, len(runs), (4.5, 2.6))
    for column, (name, shares) in zip(axes.T, runs.items(), strict=True):
        areas(column[0], shares.steps, shares.teachers)
        areas(column[1], shares.steps, shares.terms)
        column[0].set(title=name, ylabel='share of the loss')
        column[1].set(ylabel='share of the loss')
        if shares.weights:
            lines(column[2], shares.steps, shares.weights)
            column[2].set(ylabel='weight')
        elif weighed:
            column[2].set_axis_off()
        column[-1].set(xlabel='iteration')
    return figure


def main() -> None:
    args = parse_args()
    paths = named(args.runs)

    runs = {}
    with refusing():
        for name, path in paths.items():
            runs[name] = loss_shares(*read_run(path), args.smooth)
    report = {name: numbers_of(shares) for name, shares in runs.items()}
    text = table(report)
    print(text)
    for file in write_report(args.out, 'loss_share', report, text, plot(runs)):
        print(f'Written: {file}')


if __name__ == '__main__':
    main()
