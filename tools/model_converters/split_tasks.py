"""Split the checkpoint of a joint run into one file for each task.

    python tools/model_converters/split_tasks.py iter_80000.pth tasks/

Each file fits the single task's config, also with the toolboxes' own tools;
the tools of this project read joint checkpoints as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from kpu_mm.engine.checkpoint_hooks import split_checkpoint, tasks_in
from kpu_mm.utils.command_line import refuse, tool_parser
from kpu_mm.weights.checkpoint_file import read_checkpoint


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint of a joint run')
    parser.add_argument('out_dir', help='directory for <task>.pth')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        checkpoint = read_checkpoint(args.checkpoint)
    except (FileNotFoundError, RuntimeError) as error:
        refuse(str(error))
    tasks = tasks_in(checkpoint)
    if not tasks:
        refuse(f'{args.checkpoint} is not of a joint run: it has no tasks.')
    out_dir = Path(args.out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        path = out_dir / f'{task}.pth'
        torch.save(split_checkpoint(checkpoint, task), path)
        print(path)


if __name__ == '__main__':
    main()
