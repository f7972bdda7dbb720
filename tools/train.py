"""Train a model from a config.

    python tools/train.py configs/distill/kpu_vitb.py --resume

For several GPUs see tools/dist_train.sh and tools/slurm_train.sh.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from config_errors import explaining
from mmengine.runner import find_latest_checkpoint

from kpu_mm.utils.command_line import (
    add_run_arguments,
    build_runner,
    end_together,
    read_run_config,
    refuse,
    tool_parser,
    use_gloo_without_gpu,
)

if TYPE_CHECKING:
    from mmengine.config import Config

FULL_PRECISION = ('OptimWrapper', 'mmengine.OptimWrapper')
BF16 = 'kpu_mm.AutocastOptimWrapper'


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    add_run_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint; without a path, from the newest '
        "one in the work directory, or start with the config's load_from if there is none",
    )
    parser.add_argument('--amp', action='store_true', help='train in bfloat16 autocast')
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
    if checkpoint != 'auto':
        if not Path(checkpoint).is_file():
            refuse(f'--resume: there is no checkpoint {checkpoint}.')
        cfg.resume, cfg.load_from = True, checkpoint
    elif str(cfg.get('runner_type')).endswith('KPURunner'):
        cfg.resume = 'auto'
    # Other runners would resume from load_from, and cannot be told not to.
    elif find_latest_checkpoint(cfg.work_dir) is not None:
        cfg.resume, cfg.load_from = True, None


def main() -> None:
    args = parse_args()
    cfg = read_run_config(args)
    set_resume(cfg, args.resume)
    use_gloo_without_gpu(cfg)
    with explaining(cfg, args.config):
        if args.amp:
            set_precision(cfg)
        build_runner(cfg).train()
    end_together()


if __name__ == '__main__':
    main()
