r"""Measure how much fine detail a student's maps have.

    python -m projects.micro_lab.high_frequency \
        work_dirs/reproduce/seed_0/{base-b,kpu}

For each run it prints the share of the variance that is lost when the maps of
strides 4 and 8 are averaged over 2 x 2 cells and enlarged again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor

from kpu_mm.registry import MODELS

from .evaluate import last_checkpoint
from .scene_pool import load_pool

CONFIGS = Path(__file__).resolve().parent / 'configs'
SCENES = 200  # of the test split


def detail(maps: Tensor) -> float:
    """Return the share of the variance that 2 x 2 averaging loses.

    Args:
        maps: (B, C, H, W) with even H and W.
    """
    # (B, C, H, W) -> (B, C, H / 2, W / 2) -> (B, C, H, W)
    coarse = F.interpolate(F.avg_pool2d(maps, 2), size=maps.shape[-2:], mode='bilinear')
    centred = maps - maps.mean((0, 2, 3), keepdim=True)
    return float((maps - coarse).square().sum() / centred.square().sum())


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('runs', type=Path, nargs='+', help='distillations')
    parser.add_argument('--pools', type=Path, default='work_dirs/pools')
    args = parser.parse_args()
    scenes = load_pool(args.pools, 'test', seed=0, count=SCENES)
    images = scenes.take(slice(SCENES)).images.permute(0, 3, 1, 2)
    config = Config.fromfile(CONFIGS / 'tasks.py')
    for run in args.runs:
        start = dict(type='Pretrained', checkpoint=str(last_checkpoint(run)))
        backbone = MODELS.build(dict(config.model.backbone, init_cfg=start)).eval()
        backbone.init_weights()
        maps = backbone.encode(images).maps
        fine, middle = (f'{detail(m):.3f}' for m in maps[:2])
        print(f'{run}: stride 4 {fine}, stride 8 {middle}')


if __name__ == '__main__':
    main()
