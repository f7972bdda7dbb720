"""Parameters and FLOPs of a student, its projectors and its teachers.

    python tools/analysis_tools/get_flops.py configs/distill/kpu_vitb.py --random --no-teachers

Weights and data are not needed: --random builds released architectures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from rehearsal.untrained import ARCHITECTURES
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from kpu_mm.registry import MODELS
from kpu_mm.utils.command_line import add_config_arguments, read_config, refuse, tool_parser

Row = tuple[str, 'Parameters', int | None]

# torch's counter leaves these out; of them only the sampling of deformable
# attention costs much.
NOT_COUNTED = (
    'grid_sample, interpolation, norms, activations, softmax and other element-wise operations'
)
# How names of KPUBackbone's parameters start, or contain, and their part.
_PARTS = (
    ('sentinel.', 'sentinel'),
    ('prior.', 'spatial prior'),
    ('.injector.', 'injectors'),
    ('.extractors.', 'extractors'),
)


class Parameters(NamedTuple):
    """How many parameters a part has.

    Args:
        trained: Those with gradients.
        frozen: Those without.
    """

    trained: int
    frozen: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.trained + self.frozen


def part_of(name: str) -> str:
    """Tell which part of a KPUBackbone a parameter or module belongs to.

    Args:
        name: Its name within the backbone.
    """
    for pattern, part in _PARTS:
        if name.startswith(pattern) or (pattern[0] == '.' and pattern in name):
            return part
    return 'pyramid'


def count_parameters(
    module: nn.Module, part: Callable[[str], str] = part_of
) -> dict[str, Parameters]:
    """Count the parameters of each part of a module.

    Args:
        module: The module.
        part: Name of a parameter -> name of its part. Defaults to
            :func:`part_of`.

    Returns:
        The counts by part, in the order of the parameters.
    """
    counts: dict[str, Parameters] = {}
    for name, p in module.named_parameters():
        trained, frozen = counts.get(part(name), (0, 0))
        trained += p.numel() * p.requires_grad
        frozen += p.numel() * (not p.requires_grad)
        counts[part(name)] = Parameters(trained, frozen)
    return counts


@torch.no_grad()
def count_flops(module: nn.Module, images: Tensor) -> dict[str, int]:
    """Count what a forward computes: two FLOPs for each multiply-add.

    Args:
        module: A model of images.
        images: Its input, (B, 3, H, W).

    Returns:
        FLOPs per image of each module that was called, by its name; the
        module itself is ''.
    """
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={attention: _attention_flops}) as counter:
        module(images)
    root = type(module).__name__
    counts = {'': counter.get_total_flops() // len(images)}
    for name, operators in counter.get_flop_counts().items():
        if name.startswith(root + '.'):
            total = sum(operators.values()) // len(images)
            counts[name[len(root) + 1 :]] = total
    return counts


def _attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    # torch has this formula for the GPU's kernels alone.
    flops: int = sdpa_flop_count(query, key, value)
    return flops


def flops_by_part(counts: Mapping[str, int]) -> dict[str, int]:
    """FLOPs of each part of a KPUBackbone.

    Args:
        counts: What :func:`count_flops` gave of the backbone.

    Returns:
        FLOPs by the names that :func:`part_of` gives.
    """
    flops = dict.fromkeys((part for _, part in _PARTS), 0)
    parts = {name: part_of(name + '.') for name in counts}
    for name, part in parts.items():
        parents = (name[:i] for i, c in enumerate(name) if c == '.')
        # The outermost module of a part already counts those inside it.
        if part in flops and all(parts.get(p) != part for p in parents):
            flops[part] += counts[name]
    return {**flops, 'pyramid': counts[''] - sum(flops.values())}


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=(224, 224),
        metavar=('H', 'W'),
        help='pixels of the image; a teacher resizes it to what it takes (default: 224 224)',
    )
    parser.add_argument(
        '--no-teachers',
        action='store_true',
        help='leave out the teachers, and the projectors, whose sizes only the teachers tell',
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
        name = config['sentinel'].removeprefix('timm:')
        if name != config['sentinel']:
            config['sentinel'] = dict(architecture=name)
            return config
        if config['sentinel'] not in ARCHITECTURES:
            refuse(
                f'--random knows the architectures {list(ARCHITECTURES)}, not '
                f'{config["sentinel"]!r}; set model.student.sentinel to a dict of its config.'
            )
        config['sentinel'] = ARCHITECTURES[config['sentinel']]
    return config


def student_rows(student: Any, images: Any) -> list[Row]:
    flops = count_flops(student, student.normalise(images))
    parts = flops_by_part(flops)
    rows: list[Row] = [
        (f'student: {part}', counts, parts[part])
        for part, counts in count_parameters(student).items()
    ]
    return [*rows, ('student', total(rows), flops[''])]


def distiller_rows(model: Any, images: Any) -> list[Row]:
    rows: list[Row] = [
        (f'projectors: {term}', counts, None)
        for term, counts in count_parameters(model.links, lambda name: name.split('.')[1]).items()
    ]
    for name, teacher in model.teachers.items():
        counts = count_parameters(teacher, lambda _: '')['']
        rows.append((f'teacher: {name}', counts, count_flops(teacher, images)['']))
    return rows


def total(rows: list[Row]) -> Any:
    return Parameters(
        sum(counts.trained for _, counts, _ in rows), sum(counts.frozen for _, counts, _ in rows)
    )


def show(rows: list[Row], shape: tuple[int, int]) -> None:
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
    images = torch.full((1, 3, *args.shape), 127.0)
    try:
        if with_teachers:
            model = MODELS.build(cfg.model).eval()
            rows = student_rows(model.student, images)
            rows += distiller_rows(model, images)
        else:
            rows = student_rows(MODELS.build(config).eval(), images)
    except FileNotFoundError as error:
        refuse(f'{error} Or pass --no-teachers, or --random for a sentinel without its weights.')
    except (RuntimeError, ValueError) as error:
        refuse(str(error))
    show(rows, args.shape)
    if args.out:
        with open(args.out, 'w', encoding='utf-8') as file:
            json.dump(
                {name: dict(counts._asdict(), flops=flops) for name, counts, flops in rows},
                file,
                indent=2,
            )


if __name__ == '__main__':
    main()
