"""Train a model from a config."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from kpu_mm.utils.command_line import (
    add_config_arguments,
    build_runner,
    read_config,
    refuse,
    use_gloo_without_gpu,
)

if TYPE_CHECKING:
    from mmengine.config import Config

FULL_PRECISION = ('OptimWrapper', 'mmengine.OptimWrapper')
BF16 = 'kpu_mm.AutocastOptimWrapper'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument(
        '--work-dir',
        help='directory of logs and checkpoints (default: that of the config, '
        'else work_dirs/<name of the config>)',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint; without a path, from the newest '
        'one in the work directory',
    )
    parser.add_argument(
        '--amp', action='store_true', help='train in bfloat16 autocast'
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started this process among others',
    )
    # torchrun sets LOCAL_RANK itself, older launchers pass it
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser.parse_args()


def set_precision(cfg: Config) -> None:
    """Train in bfloat16 unless the config already has mixed precision."""
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind in FULL_PRECISION:
        cfg.optim_wrapper.type = BF16
    elif kind not in (BF16, 'AutocastOptimWrapper', 'AmpOptimWrapper'):
        refuse(f'--amp does not go with optim_wrapper.type={kind!r}.')


def set_resume(cfg: Config, checkpoint: str | None) -> None:
    """Resume from a checkpoint, or ``auto``, or not."""
    if checkpoint is None:
        return
    if checkpoint != 'auto' and not Path(checkpoint).is_file():
        refuse(f'--resume: there is no checkpoint {checkpoint}.')
    cfg.resume = True
    cfg.load_from = None if checkpoint == 'auto' else checkpoint


def main() -> None:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    if args.amp:
        set_precision(cfg)
    set_resume(cfg, args.resume)
    use_gloo_without_gpu(args.launcher)
    build_runner(cfg).train()


if __name__ == '__main__':
    main()
