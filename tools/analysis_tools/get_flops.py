"""Parameters and FLOPs of a student, its projectors and its teachers."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from kpu_mm.utils.command_line import add_config_arguments, read_config, refuse

if TYPE_CHECKING:
    from kpu_mm.analysis.cost import Parameters

Row = tuple[str, 'Parameters', int | None]

# Released architectures, for --random.
_DINOV2 = dict(model_type='dinov2', image_size=518, patch_size=14)
ARCHITECTURES = {
    f'facebook/dinov2-{size}': dict(
        _DINOV2,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
    )
    for size, width, depth, heads in (
        ('small', 384, 12, 6),
        ('base', 768, 12, 12),
        ('large', 1024, 24, 16),
    )
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=(224, 224),
        metavar=('H', 'W'),
        help='pixels of the image; a teacher resizes it to what it takes '
        '(default: 224 224)',
    )
    parser.add_argument(
        '--no-teachers',
        action='store_true',
        help='leave out the teachers, and the projectors, whose sizes only '
        'the teachers tell',
    )
    parser.add_argument(
        '--random',
        action='store_true',
        help='build the sentinel of a released architecture with random '
        'weights, where its weights are not on this machine; implies '
        '--no-teachers',
    )
    parser.add_argument('--out', help='also write the numbers to this JSON')
    return parser.parse_args()


def student_config(cfg: Any, random: bool) -> dict[str, Any]:
    """The student's config, or the backbone's of any other model."""
    model = cfg.get('model') or {}
    # a distiller takes plain features, no pyramid
    student = model.get('student') and dict(model.student, out_type='features')
    config = student or model.get('backbone')
    if config is None:
        refuse('the config has neither model.student nor model.backbone.')
    config = {k: v for k, v in config.items() if k != 'init_cfg'}
    if random and isinstance(config.get('sentinel'), str):
        if config['sentinel'] not in ARCHITECTURES:
            refuse(
                f'--random knows the architectures {list(ARCHITECTURES)}, '
                f'not {config["sentinel"]!r}; set model.student.sentinel to '
                'a dict of its config.'
            )
        config['sentinel'] = ARCHITECTURES[config['sentinel']]
    return config


def student_rows(student: Any, images: Any) -> list[Row]:
    from kpu_mm.analysis.cost import (
        count_flops,
        count_parameters,
        flops_by_part,
    )

    flops = count_flops(student, student.normalise(images))
    parts = flops_by_part(flops)
    rows: list[Row] = [
        (f'student: {part}', counts, parts[part])
        for part, counts in count_parameters(student).items()
    ]
    return [*rows, ('student', total(rows), flops[''])]


def distiller_rows(model: Any, images: Any) -> list[Row]:
    from kpu_mm.analysis.cost import count_flops, count_parameters

    rows: list[Row] = [
        (f'projectors: {term}', counts, None)
        for term, counts in count_parameters(
            model.links, lambda name: name.split('.')[1]
        ).items()
    ]
    for name, teacher in model.teachers.items():
        counts = count_parameters(teacher, lambda _: '')['']
        rows.append(
            (f'teacher: {name}', counts, count_flops(teacher, images)[''])
        )
    return rows


def total(rows: list[Row]) -> Any:
    from kpu_mm.analysis.cost import Parameters

    return Parameters(
        sum(counts.trained for _, counts, _ in rows),
        sum(counts.frozen for _, counts, _ in rows),
    )


def show(rows: list[Row], shape: tuple[int, int]) -> None:
    from kpu_mm.analysis.cost import NOT_COUNTED

    table = Table(title=f'One image of {shape[0]} x {shape[1]} pixels')
    table.add_column('part')
    for column in ('trained', 'frozen', 'total', 'GFLOPs'):
        table.add_column(column, justify='right')
    for name, counts, flops in rows:
        table.add_row(
            name,
            *(f'{count / 1e6:.2f} M' for count in (*counts, counts.total)),
            '' if flops is None else f'{flops / 1e9:.2f}',
            style='bold' if name == 'student' else None,
            end_section=name == 'student',
        )
    Console(width=79).print(table)
    print(f'Two FLOPs for a multiply-add. Not counted: {NOT_COUNTED}.')


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    config = student_config(cfg, args.random)
    with_teachers = 'teachers' in cfg.model
    if with_teachers and (args.no_teachers or args.random):
        with_teachers = False
        print('Teachers, and projectors into their spaces, are left out.')
    # Imported late: a wrong argument is answered at once.
    import torch

    from kpu_mm.registry import MODELS

    images = torch.full((1, 3, *args.shape), 127.0)
    try:
        if with_teachers:
            model = MODELS.build(cfg.model).eval()
            rows = student_rows(model.student, images)
            rows += distiller_rows(model, images)
        else:
            rows = student_rows(MODELS.build(config).eval(), images)
    except FileNotFoundError as error:
        refuse(
            f'{error} Or pass --no-teachers, or --random for a sentinel '
            'without its weights.'
        )
    except (RuntimeError, ValueError) as error:
        refuse(str(error))
    show(rows, args.shape)
    if args.out:
        with open(args.out, 'w', encoding='utf-8') as file:
            json.dump(
                {
                    name: dict(counts._asdict(), flops=flops)
                    for name, counts, flops in rows
                },
                file,
                indent=2,
            )


if __name__ == '__main__':
    main()
