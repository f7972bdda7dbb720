"""Write digit scenes with the labels of every task.

    python -m projects.micro_lab.make_digit_scenes data/digit_scenes

Both splits are written, ready for the config _base_/digit_scenes.py.
They share neither scans of digits nor photographs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kpu_mm.utils.command_line import refuse

from .digit_scenes import Split, write_digit_scenes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('folder', type=Path, help='gets train and test')
    parser.add_argument('--train', type=int, default=8000, help='scenes')
    parser.add_argument('--test', type=int, default=2000, help='scenes')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--size', type=int, default=64, help='pixels')
    args = parser.parse_args()
    counts: dict[Split, int] = dict(train=args.train, test=args.test)
    for split, count in counts.items():
        try:
            place = write_digit_scenes(
                args.folder / split, split, args.seed, count, args.size
            )
        except (ImportError, ValueError) as error:
            refuse(str(error))
        print(f'{count} scenes in {place}')


if __name__ == '__main__':
    main()
