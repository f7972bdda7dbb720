"""What becomes of the student's features as images get larger.

    python tools/analysis_tools/resolution_sweep.py configs/distill/kpu_vitb.py \
        iter_40000.pth --sizes 224 448 896

Mode switching (RADIOv2.5, https://arxiv.org/abs/2412.07679): the student
imitates a teacher at some sizes only. Measured: cosine, mean squared error
and linear CKA of the student with each teacher against the size of the same
images, and of the student with itself at a reference size.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from kpu_mm.analysis.agreement import Agreement, add_outputs, names_of
from kpu_mm.analysis.batches import Batch, sized_batches
from kpu_mm.analysis.distilled import load_distiller
from kpu_mm.analysis.report import lines, markdown_table, panels, write_report
from kpu_mm.models.kpu_distiller import KPUDistiller
from kpu_mm.structures import resize_like
from kpu_mm.utils.command_line import (
    add_analysis_arguments,
    add_stream_arguments,
    positive,
    read_config,
    refusing,
    tool_parser,
)

MEASURES = ('cosine', 'mse', 'cka')


@torch.no_grad()
def sweep(
    distiller: KPUDistiller, batches: Mapping[int, Iterable[Batch]], reference: int
) -> dict[str, Any]:
    """Compare the student with its teachers and with itself at each size.

    Mode switching (RADIOv2.5, https://arxiv.org/abs/2412.07679): a student
    that met each teacher at one resolution alone may imitate a teacher at
    that resolution only, and change its features at once in between.

    Args:
        distiller: A distiller with the term 's2t'.
        batches: By size, the same images in the same order.
        reference: The size with which the student is compared; one of those
            of ``batches``.

    Returns:
        ``teachers``: by name, output and size, ``cosine``, ``mse`` and
        ``cka`` of h_s2t(X) and X^t, which sees the image at that size too.
        ``student``: by output and size, the same of the student's own
        features and its features at the reference size.

    Raises:
        ValueError: If the reference is no size of ``batches``.
    """
    if reference not in batches:
        raise ValueError(f'the reference size {reference} is none of {sorted(batches)}.')
    strides = distiller.student.strides
    own = ['summary', *(f'stride {stride}' for stride in strides)]

    def measures(outputs: list[str]) -> dict[int, dict[str, Agreement]]:
        return {size: {o: Agreement() for o in outputs} for size in batches}

    itself = measures(own)
    found = {n: measures(names_of(distiller, n)) for n in distiller.links}
    for group in zip(*batches.values(), strict=True):
        images = {s: b.images for s, b in zip(batches, group, strict=True)}
        encode = distiller.student.encode
        students = {size: encode(image) for size, image in images.items()}
        # h_s2t is compared on the teacher's grid, the student with itself on
        # that of the reference size.
        like = students[reference]
        for size, student in students.items():
            add_outputs(itself[size], resize_like(student, like), like)
            for name, link in distiller.links.items():
                teacher = distiller.teachers[name].encode(images[size])
                x, x_t = link.pair(student, link.targets(teacher))
                projected = link.to_teacher(x, like=x_t)
                add_outputs(found[name][size], projected, x_t)
    return dict(
        teachers={name: _by_output(sizes) for name, sizes in found.items()},
        student=_by_output(itself),
    )


def _by_output(
    sizes: Mapping[int, Mapping[str, Agreement]],
) -> dict[str, dict[int, dict[str, float]]]:
    outputs = next(iter(sizes.values()))
    return {o: {s: sizes[s][o].result() for s in sizes} for o in outputs}


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
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

    with refusing():
        batches = sized_batches(args, cfg, sizes)
        distiller = load_distiller(cfg.get('model', {}), args.checkpoint, args.device, 's2t')
        report = sweep(distiller, batches, reference)
    columns = ['with', 'output', 'size', *MEASURES]
    text = markdown_table(columns, rows_of(report))
    print(text)
    numbers = dict(num_images=args.num_images, reference=reference, **report)
    for file in write_report(args.out, 'resolution_sweep', numbers, text, plot(report, reference)):
        print(f'Written: {file}')


if __name__ == '__main__':
    main()
