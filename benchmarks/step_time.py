"""Time of a training step over that of the models alone.

The step is what the train loop does: next batches, teachers, student,
projectors, losses, backward, optimiser. The models alone are the teachers'
forward and the student's forward and backward on the same batches. Rounds
alternate, so that a drifting machine slows both.

    python benchmarks/step_time.py CONFIG [--rounds N]

projects/micro_lab/configs/kpu_demo.py needs no files but this repository's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope

import kpu_mm  # noqa: F401
from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.models.normalizers import fit_normalizers
from kpu_mm.registry import MODELS


def timed(run: Callable[[], None]) -> float:
    """Seconds that a call takes, GPU work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def open_run(cfg: Config) -> tuple[Any, Any, MultiStreamLoader]:
    """Model, optimiser and loader of a config."""
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).to(get_device()).train()
    options = dict(cfg.optim_wrapper)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(type=options.pop('constructor'), optim_wrapper_cfg=options)
    )
    loader = MultiStreamLoader(cfg.train_dataloader)
    fit_normalizers(model, loader.loaders, 1)
    return model, constructor(model), loader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--rounds', type=int, default=10)
    args = parser.parse_args()
    DefaultScope.get_instance('benchmark', scope_name='mmengine')
    model, optim_wrapper, loader = open_run(Config.fromfile(args.config))
    batches = iter(loader)
    fixed = model.data_preprocessor(next(batches), True)['streams']

    def step() -> None:
        model.train_step(next(batches), optim_wrapper)

    def teachers() -> None:
        for stream, batch in fixed.items():
            with optim_wrapper.optim_context(model):
                for name in model.streams.of_stream[stream]:
                    model.teachers[name](batch['images'], batch['mask'])

    def student() -> None:
        for batch in fixed.values():
            with optim_wrapper.optim_context(model):
                summary, maps, _ = model.student.encode(batch['images'], batch['mask'])
                loss = sum(out.float().mean() for out in (summary, *maps))
            loss.backward()
        model.zero_grad()

    for run in (step, teachers, student):
        run()
    rounds = [(timed(step), timed(teachers), timed(student)) for _ in range(args.rounds)]
    loader.close()
    for name, column in zip(
        ('step', 'teachers', 'student'), zip(*rounds, strict=True), strict=True
    ):
        print(f'{name:9}{statistics.median(column):8.3f} s')
    ratios = [a / (b + c) for a, b, c in rounds]
    print(
        f'step / (teachers + student): median {statistics.median(ratios):.3f},'
        f' {min(ratios):.3f} to {max(ratios):.3f} in {args.rounds} rounds'
    )


if __name__ == '__main__':
    main()
