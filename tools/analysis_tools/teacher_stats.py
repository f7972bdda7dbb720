"""Mean and standard deviation of the teachers' features on their streams.

The ratio of the teachers' standard deviations is the gap that unification
has to close (KPU, https://arxiv.org/abs/2508.14707: 33.4x between
GroundingDINO and CLIP in their own spaces, 4.5x in the common one). With a
checkpoint it is measured after h_t2s, too.
"""

from __future__ import annotations

import argparse
from typing import Any

from kpu_mm.utils.command_line import (
    add_analysis_arguments,
    add_stream_arguments,
    read_config,
    refusing,
)

TITLES = dict(own="In the teachers' own spaces", common='After h_t2s')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_analysis_arguments(parser, num_images=256)
    add_stream_arguments(parser)
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint of the run, to measure its t2s projectors too',
    )
    return parser.parse_args()


def build(args: argparse.Namespace, cfg: Any) -> dict[str, Any]:
    """The spaces to measure; without a checkpoint teachers are enough."""
    from kpu_mm.analysis.distilled import load_distiller
    from kpu_mm.analysis.teacher_gap import common_space, own_space
    from kpu_mm.models.teachers import TeacherBank

    if args.checkpoint is None:
        bank = TeacherBank(cfg.model.teachers)
        bank.apply(lambda tensor: tensor.to(args.device))
        return dict(own=own_space(bank))
    distiller = load_distiller(
        cfg.get('model', {}), args.checkpoint, args.device, 't2s'
    )
    return dict(
        own=own_space(distiller.teachers), common=common_space(distiller)
    )


def table(space: dict[str, Any]) -> str:
    from kpu_mm.analysis.report import markdown_table

    rows = [
        [name, output, values['mean'], values['std']]
        for name, outputs in space['teachers'].items()
        for output, values in outputs.items()
    ]
    text = markdown_table(['teacher', 'output', 'mean', 'std'], rows)
    ratios = [
        f'Largest / smallest std of {output}: {ratio:.2f}'
        for output, ratio in space['ratios'].items()
    ]
    return '\n\n'.join([text, *ratios])


def plot(report: dict[str, Any]) -> Any:
    """A panel for each space, a group of bars for each output."""
    from kpu_mm.analysis.report import bars, panels

    spaces = [key for key in TITLES if key in report]
    figure, axes = panels(len(spaces), 1, (8, 3))
    for axis, key in zip(axes[:, 0], spaces, strict=True):
        groups: dict[str, dict[str, float]] = {}
        for name, outputs in report[key]['teachers'].items():
            for output, values in outputs.items():
                groups.setdefault(output, {})[name] = values['std']
        groups['all maps'] = groups.pop('all maps')  # after each one
        bars(axis, groups)
        axis.set(title=TITLES[key], ylabel='standard deviation')
    return figure


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    # Imported late: a wrong argument is answered at once.
    from kpu_mm.analysis.batches import teacher_batches
    from kpu_mm.analysis.report import write_report
    from kpu_mm.analysis.teacher_gap import measure_teachers

    report: dict[str, Any] = dict(num_images=args.num_images)
    with refusing():
        teacher_batches(args, cfg)  # complain before models are built
        for key, space in build(args, cfg).items():
            report[key] = measure_teachers(space, teacher_batches(args, cfg))
    text = '\n\n'.join(
        f'{title}\n\n{table(report[key])}'
        for key, title in TITLES.items()
        if key in report
    )
    print(text)
    for file in write_report(
        args.out, 'teacher_stats', report, text, plot(report)
    ):
        print(f'Written: {file}')


if __name__ == '__main__':
    main()
