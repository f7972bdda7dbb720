"""Mean and standard deviation of the teachers' features on their streams.

The ratio of the teachers' standard deviations is the gap that unification
has to close; with a checkpoint it is shown after unification too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kpu_mm.utils.command_line import add_config_arguments, read_config, refuse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument(
        '--num-images',
        type=int,
        default=256,
        help='images of each stream (default: 256)',
    )
    parser.add_argument(
        '--checkpoint',
        help='checkpoint of the run: also measure what its t2s projectors '
        "make of the teachers' features",
    )
    parser.add_argument('--seed', type=int, default=0, help='order of images')
    parser.add_argument(
        '--device', help="such as 'cuda' (default: a GPU if there is one)"
    )
    parser.add_argument(
        '--out',
        default='teacher_stats.json',
        help='JSON file to write (default: teacher_stats.json)',
    )
    return parser.parse_args()


def read_stream(name: str, config: Any, seed: int) -> Iterator[Any]:
    """One stream by itself, in the order in which training sees it."""
    from kpu_mm.datasets import MultiStreamLoader

    loader = MultiStreamLoader({name: config}, seed=seed)
    try:
        for batch in loader:
            yield batch['streams'][name]
    finally:
        loader.close()


def unify(model: Any, name: str, images: Any, mask: Any) -> Any:
    """A teacher's features in the student's space."""
    teacher = model.teach(name, images, mask)
    maps = [i for i, _ in model.pairs[name]]
    masks = teacher.masks and tuple(teacher.masks[i] for i in maps)
    teacher = teacher._replace(
        maps=tuple(teacher.maps[i] for i in maps), masks=masks
    )
    return model.projectors['t2s'][name](teacher)


def build(cfg: Any, checkpoint: str | None, device: Any) -> tuple[Any, Any]:
    """Extractors of the teachers by name, and of the unified features."""
    from kpu_mm.models.pretrained import load_state
    from kpu_mm.models.teachers import TeacherBank
    from kpu_mm.registry import MODELS

    if checkpoint is None:
        bank = TeacherBank(cfg.model.teachers)
        bank.apply(lambda tensor: tensor.to(device))
        return dict(bank), {}
    state = load_state(checkpoint)
    model = MODELS.build(cfg.model)
    if 't2s' not in model.terms:
        refuse("--checkpoint: model.terms has no 't2s', nothing is unified.")
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        refuse(
            f'{checkpoint} does not belong to the config: missing keys '
            f'{missing[:3]}, unexpected keys {unexpected[:3]}.'
        )
    model.eval().to(device)
    unified = {name: partial(unify, model, name) for name in model.teachers}
    return dict(model.teachers), unified


def show(title: str, stats: dict[str, Any]) -> None:
    table = Table(title=title)
    table.add_column('teacher')
    table.add_column('output')
    table.add_column('mean', justify='right')
    table.add_column('std', justify='right')
    for name, outputs in stats['teachers'].items():
        for output, values in outputs.items():
            numbers = [f'{values[key]:.4g}' for key in ('mean', 'std')]
            table.add_row(name, output, *numbers)
    Console(width=79).print(table)
    for output, ratio in stats['ratios'].items():
        print(f'Largest / smallest std of {output}: {ratio:.2f}')


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if args.num_images < 1:
        refuse(f'--num-images={args.num_images}: at least one is needed.')
    names = list(cfg.get('model', {}).get('teachers', {}))
    streams = cfg.get('train_dataloader', {})
    if not names or set(names) - set(streams):
        refuse(
            f'{args.config} has teachers {names} and streams '
            f'{list(streams)}; every teacher needs a stream of its name.'
        )
    # Imported late: a wrong argument is answered at once.
    import torch

    from kpu_mm.analysis import measure_teachers

    gpu = 'cuda' if torch.cuda.is_available() else 'cpu'
    device = torch.device(args.device or gpu)
    report: dict[str, Any] = dict(num_images=args.num_images)
    try:
        teachers, unified = build(cfg, args.checkpoint, device)
        for key, title, extracts in (
            ('teachers', "In the teachers' own spaces", teachers),
            ('unified', 'After unification', unified),
        ):
            if extracts:
                batches = {
                    name: read_stream(name, streams[name], args.seed)
                    for name in names
                }
                report[key] = measure_teachers(
                    extracts, batches, args.num_images, device
                )
                show(title, report[key])
    except (OSError, RuntimeError, ValueError) as error:
        refuse(str(error))
    text = json.dumps(report, indent=2) + '\n'
    Path(args.out).write_text(text, encoding='utf-8')
    print(f'Written to {args.out}.')


if __name__ == '__main__':
    main()
