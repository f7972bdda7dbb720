"""Time of a training step with a feature cache over that without.

Writes the caches of all teachers of a config to a temporary folder, then
times whole steps (next batches, teachers or stored features, student,
projectors, losses, backward, optimiser) of both runs in turn, so that a
drifting machine slows both.

    python benchmarks/feature_cache.py CONFIG [--rounds N]

All images of CONFIG are stored, so it should name few:
benchmarks/random_models.py writes such a config, with the paper's models and
random weights.
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
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from step_time import open_run, timed

from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.models.teachers import TeacherBank

TOOL = Path(__file__).parents[1] / 'tools/dataset_tools/cache_features.py'


def cached_streams(cfg: Config, folder: str) -> Any:
    """The same streams, which bring their teachers' stored features."""
    streams = copy.deepcopy(cfg.train_dataloader)
    for name in cfg.model.teachers:
        stream = (cfg.model.get('streams') or {}).get(name, name)
        dataset = streams[stream].dataset
        dataset['features'] = {
            **dataset.get('features', {}),
            name: f'{folder}/{name}',
        }
    return streams


def step_of(
    model: Any, optim_wrapper: Any, teachers: TeacherBank, loader: Any
) -> Callable[[], None]:
    """A training step with these teachers; one student serves all."""
    batches = iter(loader)

    def step() -> None:
        model.teachers = teachers
        model.train_step(next(batches), optim_wrapper)

    return step


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
        model, optim_wrapper, live = open_run(cfg)
        cached = MultiStreamLoader(cached_streams(cfg, folder))
        configs = {
            name: dict(type='kpu_mm.CachedTeacher', cache=f'{folder}/{name}')
            for name in model.teachers
        }
        stored = TeacherBank(configs).apply(lambda t: t.to(get_device()))
        steps = [
            step_of(model, optim_wrapper, teachers, loader)
            for teachers, loader in ((model.teachers, live), (stored, cached))
        ]
        for step in steps:
            step()
        ratios = []
        for number in range(args.rounds):
            seconds = [timed(step) for step in steps]
            ratios.append(seconds[1] / seconds[0])
            print(
                f'round {number + 1}: without {seconds[0]:.3f} s, with '
                f'{seconds[1]:.3f} s, ratio {ratios[-1]:.3f}',
                flush=True,
            )
        live.close()
        cached.close()
    print(
        f'with cache / without: median {statistics.median(ratios):.3f}, '
        f'{min(ratios):.3f} to {max(ratios):.3f} in {args.rounds} rounds'
    )


if __name__ == '__main__':
    main()
