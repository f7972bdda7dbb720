"""Time of a training step with each balancer over that with equal weights.

The models and batches are those of the config; rounds alternate, so that a
drifting machine slows all.

    python benchmarks/balancers.py CONFIG [--rounds N]

PYTHONPATH=. lets projects/micro_lab/configs/kpu_demo.py import the lab.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from step_time import timed

import kpu_mm.engine.optimizers  # noqa: F401
from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.registry import MODELS

BALANCERS = ('Equal', 'FAMO', 'TeacherDrop', 'AdaLoss', 'Uncertainty')


def stepper(cfg: Config, balancer: str) -> Callable[[], None]:
    """A function that takes one training step on always the same batch."""
    torch.manual_seed(0)
    cfg.model.balancer = dict(type=f'kpu_mm.{balancer}Balancer')
    model = MODELS.build(cfg.model).to(get_device()).train()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    loader = MultiStreamLoader(cfg.train_dataloader)
    batch = next(iter(loader))
    loader.close()

    def step() -> None:
        model.train_step(batch, optim_wrapper)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--rounds', type=int, default=10)
    args = parser.parse_args()
    DefaultScope.get_instance('benchmark', scope_name='mmengine')
    cfg = Config.fromfile(args.config)
    steps = {name: stepper(cfg, name) for name in BALANCERS}
    for step in steps.values():
        step()
    rounds = [{name: timed(step) for name, step in steps.items()} for _ in range(args.rounds)]
    for name in BALANCERS:
        ratios = [row[name] / row['Equal'] for row in rounds]
        print(
            f'{name:12}{statistics.median(r[name] for r in rounds):8.3f} s, over Equal: median '
            f'{statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}'
        )


if __name__ == '__main__':
    main()
