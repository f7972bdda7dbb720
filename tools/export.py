"""Export the student of a distillation run into a self-contained folder.

    python tools/export.py configs/distill/kpu_vitb.py iter_40000.pth STUDENT

The teachers need not be on this machine. The folder's README.md tells how to
load it with kpu_mm, in a config of OpenMMLab, and where asked for, with torch
alone or an ONNX runtime.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kpu_mm.utils.command_line import add_config_arguments, read_config, refuse, tool_parser


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint of the run')
    parser.add_argument('out_dir', help='folder to write; must not exist yet')
    parser.add_argument(
        '--onnx',
        action='store_true',
        help='also write student.onnx, with free batch, height and width',
    )
    parser.add_argument(
        '--program', action='store_true', help='also write student.pt2, a torch.export program'
    )
    parser.add_argument(
        '--heads',
        nargs='+',
        default=[],
        metavar='TEACHER',
        help='teachers whose features --onnx and --program give besides the '
        "student's own, by their names in the config",
    )
    args = parser.parse_args()
    if args.heads and not (args.onnx or args.program):
        parser.error('--heads says what --onnx and --program give; add one.')
    return args


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if 'model' not in cfg:
        refuse(f'{args.config} has no `model`.')
    # Imported late: a wrong argument is answered at once.
    from kpu_mm.export import read_student, write_student
    from kpu_mm.export.write import check_target

    try:
        formats = [n for n in ('onnx', 'program') if getattr(args, n)]
        check_target(Path(args.out_dir), formats)
        student = read_student(cfg.model.to_dict(), args.checkpoint)
        folder = write_student(student, args.out_dir, formats, args.heads)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        refuse(str(error))
    for file in sorted(folder.rglob('*')):
        if file.is_file():
            size = file.stat().st_size / 1e6
            print(f'{size:9.1f} MB  {file.relative_to(folder)}')
    graphs = json.loads((folder / 'config.json').read_text()).get('graphs', {})
    for name, difference in graphs.get('largest_differences', {}).items():
        print(f'{name} differs from PyTorch by {difference:.1e} at most.')
    print(f'Exported to {folder}; its README.md tells how to load it.')


if __name__ == '__main__':
    main()
