"""Which share of the loss each teacher and each term has during training.

    python tools/analysis_tools/loss_share.py work_dirs/kpu_vitb
    python tools/analysis_tools/loss_share.py equal=RUN_DIR famo=RUN_DIR

Read from what MMEngine logs: losses such as s2t/clip, and the balancer's
weights (weight/clip) where it logs them. Several runs are put side by side.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kpu_mm.utils.command_line import (
    add_out_argument,
    positive,
    refuse,
    refusing,
)

if TYPE_CHECKING:
    from kpu_mm.analysis.loss_share import LossShares


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'runs',
        nargs='+',
        metavar='[NAME=]PATH',
        help='work directory or scalars.json of a run',
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
    from kpu_mm.analysis.loss_share import first_and_last

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
    from kpu_mm.analysis.report import markdown_table

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
    from kpu_mm.analysis.report import areas, lines, panels

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
    # Imported late: a wrong argument is answered at once.
    from kpu_mm.analysis.loss_share import loss_shares, read_run
    from kpu_mm.analysis.report import write_report

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
