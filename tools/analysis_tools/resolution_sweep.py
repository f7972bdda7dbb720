"""What becomes of the student's features as images get larger.

Mode switching (RADIOv2.5, https://arxiv.org/abs/2412.07679): the student
imitates a teacher at some sizes only. Measured: cosine, mean squared error
and linear CKA of the student with each teacher against the size of the same
images, and of the student with itself at a reference size.
"""

from __future__ import annotations

import argparse
from typing import Any

from kpu_mm.utils.command_line import (
    add_analysis_arguments,
    add_stream_arguments,
    positive,
    read_config,
    refusing,
)

MEASURES = ('cosine', 'mse', 'cka')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_analysis_arguments(parser, num_images=32)
    parser.add_argument('checkpoint', help='checkpoint of the run')
    add_stream_arguments(parser, whole_images=True)
    parser.add_argument(
        '--sizes',
        type=positive,
        nargs='+',
        default=[224, 336, 448, 560, 672, 784, 896, 1024],
        help='pixels of the shorter side (default: 224 to 1024)',
    )
    parser.add_argument(
        '--reference',
        type=positive,
        help='size with which the student is compared (default: the first)',
    )
    return parser.parse_args()


def rows_of(report: dict[str, Any]) -> list[list[Any]]:
    found = dict(report['teachers'], student=report['student'])
    return [
        [name, output, size, *(values[m] for m in MEASURES)]
        for name, outputs in found.items()
        for output, sizes in outputs.items()
        for size, values in sizes.items()
    ]


def plot(report: dict[str, Any], reference: int) -> Any:
    """A row for each comparison, a column for each measure."""
    from kpu_mm.analysis.report import lines, panels

    found = {
        **{f'student as {n}': o for n, o in report['teachers'].items()},
        f'student, with itself at {reference}': report['student'],
    }
    figure, axes = panels(len(found), len(MEASURES), (4, 2.8))
    for row, (title, outputs) in zip(axes, found.items(), strict=True):
        for axis, measure in zip(row, MEASURES, strict=True):
            sizes = list(next(iter(outputs.values())))
            series = {
                output: [v[measure] for v in by_size.values()]
                for output, by_size in outputs.items()
            }
            lines(axis, sizes, series)
            axis.set(title=title, xlabel='shorter side', ylabel=measure)
            if axis is not row[-1]:
                axis.get_legend().remove()  # the row's last one serves all
    return figure


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    reference = args.reference or args.sizes[0]
    sizes = sorted({*args.sizes, reference})
    # Imported late: a wrong argument is answered at once.
    from kpu_mm.analysis.agreement import sweep
    from kpu_mm.analysis.batches import sized_batches
    from kpu_mm.analysis.distilled import load_distiller
    from kpu_mm.analysis.report import markdown_table, write_report

    with refusing():
        batches = sized_batches(args, cfg, sizes)
        distiller = load_distiller(
            cfg.get('model', {}), args.checkpoint, args.device, 's2t'
        )
        report = sweep(distiller, batches, reference)
    columns = ['with', 'output', 'size', *MEASURES]
    text = markdown_table(columns, rows_of(report))
    print(text)
    numbers = dict(num_images=args.num_images, reference=reference, **report)
    for file in write_report(
        args.out, 'resolution_sweep', numbers, text, plot(report, reference)
    ):
        print(f'Written: {file}')


if __name__ == '__main__':
    main()
