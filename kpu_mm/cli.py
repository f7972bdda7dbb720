"""The command ``kpu-mm``: one call to distil, and the tools under one name."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence

from kpu_mm.utils.command_line import SettingsAction, positive, refusing
from kpu_mm.utils.startup import shipped

# commands that are tools of the repository, with what they do
TOOLS = {
    'train': 'train any model from a config',
    'test': 'test any model from a config',
    'export': 'write the student of a run into a folder of its own',
    'demo': 'features, boxes, masks and classes of images',
}
EXAMPLE = """example:
  kpu-mm distill --images photos/ --out runs/first \\
      --teachers clip=ViT-B-16:openai grounding_dino=IDEA-Research/grounding-dino-tiny
"""


def parse_args(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of ``kpu-mm``.

    Args:
        arguments: What follows the name of the command.
    """
    parser = argparse.ArgumentParser(
        prog='kpu-mm',
        description='Distil vision foundation models into one backbone.',
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, text in TOOLS.items():
        commands.add_parser(name, help=text, add_help=False)
    commands.add_parser('doctor', help='describe this installation', add_help=False)
    one = commands.add_parser(
        'distill',
        help='from a folder of images to an exported student',
        description='Distil teachers into a student, on images without labels. Called again, '
        'the command resumes.',
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument('--images', nargs='+', required=True, help='folders, .txt lists, .tar shards')
    one.add_argument(
        '--teachers',
        nargs='+',
        required=True,
        type=_named,
        metavar='NAME=MODEL',
        help='names: clip, siglip, dinov2, dinov3, grounding_dino, mm_grounding_dino, timm, '
        'transformers; models: hub names or folders, for CLIP also MODEL:WEIGHTS',
    )
    one.add_argument('--out', required=True, help='folder of all that is written')
    one.add_argument(
        '--sentinel',
        default='facebook/dinov2-base',
        help="hub name, 'timm:NAME' or folder of a ViT (default: %(default)s)",
    )
    one.add_argument('--iters', type=positive, help='iterations (default: by number of images)')
    one.add_argument('--seed', type=int, default=0)
    one.add_argument('--gpus', type=positive, default=1, help='GPUs of this machine (default: 1)')
    one.add_argument('--loggers', nargs='+', default=[], choices=['tensorboard', 'wandb'])
    one.add_argument(
        '--cfg-options',
        nargs='+',
        action=SettingsAction,
        help='change the config: nested.key=value',
    )
    known, rest = parser.parse_known_args(arguments)
    if known.command == 'distill' and rest:
        one.error(f'unrecognized arguments: {" ".join(rest)}')
    names = [name for name, _ in getattr(known, 'teachers', [])]
    if len(set(names)) < len(names):
        one.error(f'--teachers names one twice: {" ".join(names)}')
    return known


def _named(text: str) -> tuple[str, str]:
    name, equals, model = text.partition('=')
    if not (name and equals and model):
        raise argparse.ArgumentTypeError(f'{text!r} is no NAME=MODEL')
    return name, model


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``kpu-mm``.

    Args:
        arguments: What follows the name of the command. Defaults to None,
            those of this process.

    Returns:
        The exit code.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    args = parse_args(given)
    rest = given[given.index(args.command) + 1 :]
    if args.command == 'doctor':
        from kpu_mm.utils import doctor

        return doctor.main(rest)
    if args.command in TOOLS:
        tool = shipped(f'tools/{args.command}.py')
        # as Python starts a script: the tools import their neighbours
        sys.path.insert(0, str(tool.parent))
        sys.argv = [str(tool), *rest]
        runpy.run_path(str(tool), run_name='__main__')
        return 0
    with refusing():
        from kpu_mm.apis.distill import distill

        distill(
            images=args.images,
            teachers=dict(args.teachers),
            out=args.out,
            sentinel=args.sentinel,
            iters=args.iters,
            seed=args.seed,
            gpus=args.gpus,
            loggers=tuple(args.loggers),
            options=args.cfg_options,
        )
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
