"""Compare norm layers of the adapter on streams of two sizes.

    python -m projects.micro_lab.norm_statistics --norms BN GN LN2d

CLIP sees scenes of 64 x 64 pixels, GroundingDINO of up to 96 x 96 with
padding. Batch norms take each stream's own statistics in training, and one
mixture of both afterwards. A student is trained for each norm layer; then its
agreement with the teachers is measured on scenes that no training used, with
the norm layers as in training and as afterwards.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import nn
from torch.optim.swa_utils import update_bn

from kpu_mm.analysis.agreement import Agreement, add_outputs, names_of
from kpu_mm.analysis.distilled import extract_pairs
from kpu_mm.datasets import MultiStreamLoader
from kpu_mm.engine.distill_hooks import NormEvalHook
from kpu_mm.registry import MODELS

CONFIG = Path(__file__).parent / 'configs' / 'kpu_demo.py'
NORMS = {
    'BN': dict(type='BN'),
    'GN': dict(type='GN', num_groups=16),
    'LN2d': dict(type='mmpretrain.LN2d', eps=1e-6),
    'BN, NormEvalHook': dict(type='BN'),
}
TEACHERS = ('clip', 'grounding_dino')
_BATCHES = 24  # for statistics, and for each measurement
Streams = Mapping[str, Mapping[str, Any]]


def crop_a_side(results: dict[str, Any]) -> dict[str, Any]:
    """Cut up to a third of one side, so that batches have padding."""
    keep = random.randint(64, 96)
    image = results['img']
    results['img'] = image[:keep] if random.random() < 0.5 else image[:, :keep]
    return results


def batches(config: Config, scenes: int, count: int) -> Iterator[Streams]:
    """Batches of both streams.

    Args:
        config: The demo's config.
        scenes: Seed of the series of scenes.
        count: Number of batches.
    """
    streams = deepcopy(config.train_dataloader.to_dict())
    for stream in streams.values():
        stream['num_workers'] = 0
        stream['dataset']['sources']['seed'] = scenes
    dataset = streams['grounding_dino']['dataset']
    _, pack = dataset['pipeline']
    resize = dict(type='kpu_mm.DecodeResize', shortest=96, longest=96)
    dataset['pipeline'] = [resize, crop_a_side, pack]
    for batch in islice(MultiStreamLoader(streams, seed=config.randomness.seed), count):
        yield batch['streams']


class _Encode(nn.Module):
    """The student as update_bn calls it, with a pair of images and mask."""

    def __init__(self, student: Any) -> None:
        super().__init__()
        self.student = student

    def forward(self, pair: Any) -> Any:
        return self.student.encode(*pair)


def recalibrate(model: Any, config: Config, names: Iterable[str] = TEACHERS) -> None:
    """Measure the running statistics of batch norms anew.

    Args:
        model: The distiller.
        config: The demo's config.
        names: Streams that count.
    """
    pairs = (
        ((streams[name]['images'], streams[name]['mask']),)
        for streams in batches(config, 1, _BATCHES)
        for name in names
    )
    update_bn(pairs, _Encode(model.student))


def train(config: Config, norm: str, iterations: int) -> Any:
    """Distil a student.

    Args:
        config: The demo's config.
        norm: One of ``NORMS``.
        iterations: Number of training steps.
    """
    torch.manual_seed(config.randomness.seed)
    cfg = deepcopy(config.model)
    cfg.student.norm_cfg = NORMS[norm]
    model = MODELS.build(cfg).train()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=4e-3, weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    wrapper = OptimWrapper(optimizer)
    hook = NormEvalHook(window=max(1, min(50, iterations // 4)))
    runner: Any = SimpleNamespace(model=model, max_iters=iterations)
    for i, streams in enumerate(batches(config, 1, iterations)):
        if norm == 'BN, NormEvalHook':
            hook.before_train_iter(runner, i)
        log = model.train_step(dict(streams=streams), wrapper)
        schedule.step()
        if i % 50 == 0:
            print(norm, i, f'loss {float(log["loss"]):.3f}', flush=True)
    return model


@torch.no_grad()
def agreement(model: Any, config: Config, names: Iterable[str]) -> dict[str, float]:
    """Cosine of h_s2t(X) and X^t by output, in the model's present mode.

    Args:
        model: The distiller.
        config: The demo's config.
        names: Teachers.
    """
    found = {n: {output: Agreement() for output in names_of(model, n)} for n in names}
    for streams in batches(config, 2, _BATCHES):
        for name, outputs in found.items():
            batch = streams[name]
            student, teacher = extract_pairs(model, name, batch['images'], batch['mask'])
            guess = model.links[name].to_teacher(student, like=teacher)
            add_outputs(outputs, guess, teacher)
    return {
        f'{name} {output}': round(measure.cosine / measure.images, 4)
        for name, outputs in found.items()
        for output, measure in outputs.items()
    }


def measure(model: Any, config: Config, norm: str) -> Iterator[tuple[str, dict[str, float]]]:
    """Agreement with the norm layers in each of their states.

    Args:
        model: The distiller, trained; its batch norms are changed.
        config: The demo's config.
        norm: One of ``NORMS``.
    """
    state = deepcopy(model.state_dict())
    yield 'as in training', agreement(model.train(), config, TEACHERS)
    model.load_state_dict(state)
    yield 'as afterwards', agreement(model.eval(), config, TEACHERS)
    if norm == 'BN':
        recalibrate(model, config)
        yield 'recalibrated', agreement(model.eval(), config, TEACHERS)
        found: dict[str, float] = {}
        for name in TEACHERS:
            recalibrate(model, config, [name])
            found |= agreement(model.eval(), config, [name])
        yield 'statistics of each stream', found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--norms', nargs='+', default=list(NORMS), choices=NORMS)
    parser.add_argument('--iterations', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = Config.fromfile(CONFIG)
    config.randomness.seed = args.seed
    for norm in args.norms:
        model = train(config, norm, args.iterations)
        for state, values in measure(model, config, norm):
            mean = sum(values.values()) / len(values)
            print(f'{norm}, {state}: {mean:.4f}', json.dumps(values), flush=True)


if __name__ == '__main__':
    main()
