"""Export the student of a distillation run into a self-contained folder.

The teachers need not be on this machine. The folder's README.md tells how to
load it with kpu_mm, in a config of OpenMMLab, and with torch alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kpu_mm.utils.command_line import add_config_arguments, read_config, refuse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint of the run')
    parser.add_argument('out_dir', help='folder to write; must not exist yet')
    parser.add_argument(
        '--no-program',
        action='store_true',
        help='leave out student.pt2, the program for torch alone; it holds '
        'all weights once more',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if 'model' not in cfg:
        refuse(f'{args.config} has no `model`.')
    # Imported late: a wrong argument is answered at once.
    from kpu_mm.export import read_student, write_student
    from kpu_mm.export.write import check_free

    try:
        check_free(Path(args.out_dir))
        student = read_student(cfg.model.to_dict(), args.checkpoint)
        folder = write_student(student, args.out_dir, not args.no_program)
    except (OSError, RuntimeError, ValueError) as error:
        refuse(str(error))
    for file in sorted(folder.rglob('*')):
        if file.is_file():
            size = file.stat().st_size / 1e6
            print(f'{size:9.1f} MB  {file.relative_to(folder)}')
    print(f'Exported to {folder}; its README.md tells how to load it.')


if __name__ == '__main__':
    main()
