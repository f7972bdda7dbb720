"""How close the student's features are to each teacher's, level by level.

    python tools/analysis_tools/agreement.py configs/distill/kpu_vitb.py iter_40000.pth

On each teacher's own stream: cosine, mean squared error and linear CKA
(Kornblith et al., https://arxiv.org/abs/1905.00414) between h_s2t(X) and
X^t; then CKA of the teacher with the student's and the sentinel's own
features, which shows what was learnt without the help of the projector.
"""

from __future__ import annotations

import argparse
from typing import Any

from kpu_mm.utils.command_line import (
    add_analysis_arguments,
    add_stream_arguments,
    read_config,
    refusing,
    tool_parser,
)

MEASURES = ('cosine', 'mse', 'cka', 'cka_student', 'cka_sentinel')


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_analysis_arguments(parser, num_images=256)
    add_stream_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint of the run')
    return parser.parse_args()


def table(report: dict[str, Any]) -> str:
    from kpu_mm.analysis.report import markdown_table

    rows = [
        [teacher, output, *(values.get(m) for m in MEASURES)]
        for teacher, outputs in report.items()
        for output, values in outputs.items()
    ]
    return markdown_table(['teacher', 'output', *MEASURES], rows)


def plot(report: dict[str, Any]) -> Any:
    """A panel for each teacher; the error has another scale, so no bar."""
    from kpu_mm.analysis.report import bars, panels

    figure, axes = panels(len(report), 1, (8, 3))
    for place, (teacher, outputs) in zip(axes, report.items(), strict=True):
        values = {
            output: {m: v for m, v in row.items() if m != 'mse'} for output, row in outputs.items()
        }
        bars(place[0], values)
        place[0].set(title=teacher, ylim=(None, 1.1))
    return figure


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    # Imported late: a wrong argument is answered at once.
    from kpu_mm.analysis.agreement import measure_agreement
    from kpu_mm.analysis.batches import teacher_batches
    from kpu_mm.analysis.distilled import load_distiller
    from kpu_mm.analysis.report import write_report

    with refusing():
        batches = teacher_batches(args, cfg)
        distiller = load_distiller(cfg.get('model', {}), args.checkpoint, args.device, 's2t')
        report = {
            name: measure_agreement(distiller, name, batches[name]) for name in distiller.teachers
        }
    text = table(report)
    print(text)
    numbers = dict(num_images=args.num_images, teachers=report)
    for file in write_report(args.out, 'agreement', numbers, text, plot(report)):
        print(f'Written: {file}')


if __name__ == '__main__':
    main()
