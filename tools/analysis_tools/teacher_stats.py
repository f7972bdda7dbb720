"""Mean and standard deviation of the teachers' features on their streams.

    python tools/analysis_tools/teacher_stats.py configs/distill/kpu_vitb.py

The ratio of the teachers' standard deviations is the gap that unification
has to close (KPU, https://arxiv.org/abs/2508.14707: 33.4x between
GroundingDINO and CLIP in their own spaces, 4.5x in the common one). With a
checkpoint it is measured after h_t2s, too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from functools import partial, reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from kpu_mm.analysis.batches import Batch, teacher_batches, without_augmentation
from kpu_mm.analysis.distilled import Encode, load_distiller
from kpu_mm.analysis.report import bars, markdown_table, panels, write_report
from kpu_mm.models.kpu_distiller import KPUDistiller
from kpu_mm.models.teachers import BaseTeacher, TeacherBank
from kpu_mm.structures import Features, Moments, valid_vectors
from kpu_mm.utils.command_line import (
    add_analysis_arguments,
    add_stream_arguments,
    read_config,
    refusing,
    tool_parser,
)

TITLES = dict(own="In the teachers' own spaces", common='After h_t2s')


Space = dict[str, tuple[Encode, list[str]]]


def own_space(teachers: Mapping[str, BaseTeacher]) -> Space:
    """Describe the teachers as they are.

    Args:
        teachers: By name.
    """
    return {
        name: (teacher.encode, [f'map {i}, stride {s}' for i, s in enumerate(teacher.strides)])
        for name, teacher in teachers.items()
    }


def common_space(distiller: KPUDistiller) -> Space:
    """Describe the teachers after h_t2s.

    Args:
        distiller: A distiller with the term 't2s'.

    Returns:
        The teachers; maps are named after the student's levels.
    """
    strides = distiller.student.strides
    space: Space = {}
    for name, link in distiller.links.items():
        levels = [link.levels.pairs[k][1] for k in link.unified]
        names = [f'stride {strides[level]}' for level in levels]
        space[name] = (partial(_unified, distiller, name), names)
    return space


def _unified(distiller: KPUDistiller, name: str, images: Tensor, mask: Tensor | None) -> Features:
    """h_t2s(X^t), on the teacher's own grids."""
    link = distiller.links[name]
    targets = link.targets(distiller.teachers[name].encode(images, mask))
    maps = [link.levels.pairs[k][0] for k in link.unified]
    return link.to_student(targets.select(maps))


@torch.no_grad()
def _measure(
    encode: Encode, outputs: Sequence[str], batches: Iterable[Batch]
) -> dict[str, Moments]:
    """Moments of all values of each output, whatever the channel."""
    parts: dict[str, list[Moments]] = {}
    for images, mask in batches:
        features = encode(images, mask)
        names = ['summary'] * (features.summary is not None) + [*outputs]
        for output, (_, values, valid) in zip(names, features.outputs(), strict=True):
            # (N, C) -> (NC, 1): channels are not told apart
            vectors = valid_vectors(values, valid).reshape(-1, 1)
            # maps of one name, as of one student level, count together
            parts.setdefault(output, []).append(Moments.of(vectors))
    moments = {output: reduce(add, found) for output, found in parts.items()}
    maps = [m for output, m in moments.items() if output != 'summary']
    return {**moments, 'all maps': reduce(add, maps)}


def measure_teachers(space: Space, batches: Mapping[str, Iterable[Batch]]) -> dict[str, Any]:
    """Measure mean and standard deviation of every output, and the gap.

    The gap is the ratio of the largest to the smallest standard deviation:
    in KPU (https://arxiv.org/abs/2508.14707) 33.4 between GroundingDINO and
    CLIP in their own spaces, 4.5 in the common one.

    Args:
        space: The teachers, as they are or after unification.
        batches: Images for each of them.

    Returns:
        ``teachers``: by name and output, ``mean`` and ``std`` over all values
        of all images; the output 'all maps' is over all maps together.
        ``ratios``: by output that several teachers have, the largest standard
        deviation over the smallest.
    """
    teachers = {
        name: {
            output: dict(mean=m.mean.item(), std=m.variance.sqrt().item())
            for output, m in _measure(encode, outputs, batches[name]).items()
        }
        for name, (encode, outputs) in space.items()
    }
    stds: dict[str, list[float]] = {}
    for found in teachers.values():
        for output, values in found.items():
            stds.setdefault(output, []).append(values['std'])
    ratios = {o: max(v) / min(v) for o, v in stds.items() if len(v) > 1}
    return dict(teachers=teachers, ratios=ratios)


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_analysis_arguments(parser, num_images=256)
    add_stream_arguments(parser)
    parser.add_argument(
        '--images',
        metavar='FOLDER',
        help='folder of images, which are not augmented, such as a validation set (default: '
        'the streams of the config, as in training)',
    )
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint of the run, to measure its t2s projectors too'
    )
    return parser.parse_args()


def build(args: argparse.Namespace, cfg: Any) -> dict[str, Any]:
    """The spaces to measure; without a checkpoint teachers are enough."""
    if args.checkpoint is None:
        bank = TeacherBank(cfg.model.teachers)
        bank.apply(lambda tensor: tensor.to(args.device))
        return dict(own=own_space(bank))
    distiller = load_distiller(cfg.get('model', {}), args.checkpoint, args.device, 't2s')
    return dict(own=own_space(distiller.teachers), common=common_space(distiller))


def table(space: dict[str, Any]) -> str:

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

    report: dict[str, Any] = dict(num_images=args.num_images)
    with refusing():
        if args.images is not None:
            without_augmentation(cfg, args.images)
        teacher_batches(args, cfg)  # complain before models are built
        for key, space in build(args, cfg).items():
            report[key] = measure_teachers(space, teacher_batches(args, cfg))
    text = '\n\n'.join(
        f'{title}\n\n{table(report[key])}' for key, title in TITLES.items() if key in report
    )
    print(text)
    for file in write_report(args.out, 'teacher_stats', report, text, plot(report)):
        print(f'Written: {file}')


if __name__ == '__main__':
    main()
