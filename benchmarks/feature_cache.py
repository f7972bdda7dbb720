"""Time of a training step with a feature cache over that without.

Writes the caches of all teachers of a config to a temporary folder, then
times whole steps (next batches, teachers or stored features, student,
projectors, losses, backward, optimiser) of both runs in turn, so that a
drifting machine slows both.

    python benchmarks/feature_cache.py CONFIG [--rounds N]

`make demo` makes the models that configs/distill/kpu_demo.py names,
benchmarks/random_models.py those of the paper with random weights.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope
from step_time import open_run, timed

import kpu_mm  # noqa: F401

TOOL = Path(__file__).parents[1] / 'tools/dataset_tools/cache_features.py'


def with_caches(cfg: Config, folder: str) -> Config:
    """The same run, whose teachers are read from caches."""
    cached = copy.deepcopy(cfg)
    streams = cfg.model.get('streams') or {}
    for name, teacher in cfg.model.teachers.items():
        cache = f'{folder}/{name}'
        cached.model.teachers[name] = dict(
            type='kpu_mm.CachedTeacher', cache=cache, teacher=teacher
        )
        dataset = cached.train_dataloader[streams.get(name, name)].dataset
        dataset['features'] = {**dataset.get('features', {}), name: cache}
    return cached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--rounds', type=int, default=10)
    args = parser.parse_args()
    DefaultScope.get_instance('benchmark', scope_name='mmengine')
    cfg = Config.fromfile(args.config)
    for stream in cfg.train_dataloader.values():
        stream.dataset.views = 1
    with tempfile.TemporaryDirectory() as folder:
        tool = [sys.executable, str(TOOL), args.config, folder]
        subprocess.run([*tool, '--batch-size', '4'], check=True)
        runs = [open_run(c) for c in (cfg, with_caches(cfg, folder))]
        steps = [step_of(*run) for run in runs]
        for step in steps:
            step()
        rounds = [[timed(s) for s in steps] for _ in range(args.rounds)]
        for _, _, loader in runs:
            loader.close()
    names = ('teachers run', 'features read')
    for name, column in zip(names, zip(*rounds, strict=True), strict=True):
        print(f'{name:14}{statistics.median(column):8.3f} s')
    ratios = [cached / live for live, cached in rounds]
    print(
        f'with cache / without: median {statistics.median(ratios):.3f}, '
        f'{min(ratios):.3f} to {max(ratios):.3f} in {args.rounds} rounds'
    )


def step_of(model, optim_wrapper, loader) -> Callable[[], None]:
    batches = iter(loader)
    return lambda: model.train_step(next(batches), optim_wrapper)


if __name__ == '__main__':
    main()
