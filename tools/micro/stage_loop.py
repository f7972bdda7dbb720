"""A training loop that can be killed at any time and goes on."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kpu_mm.datasets.hashing import stable_hash

_CHECKPOINT_SECONDS = 90.0
_WARM_UP_STEPS = 100
_DECAY_SHARE = 0.35


class Plan(NamedTuple):
    """How long and how fast a stage learns.

    Args:
        images: Images in all.
        batch_size: Images of a step.
        lr: Peak learning rate, which decays in the last third.
        weight_decay: Of matrices; vectors have none. Defaults to 0.02.
        slow: Parts of names of parameters that learn at 0.3 of the rate.
            Defaults to ().
        orthogonal: Parts of names of matrices that `Muon
            <https://kellerjordan.github.io/posts/muon/>`_ trains instead of
            AdamW. Defaults to ().
        evaluate_every: Images between two evaluations. Defaults to 20000.
    """

    images: int
    batch_size: int
    lr: float
    weight_decay: float = 0.02
    slow: tuple[str, ...] = ()
    orthogonal: tuple[str, ...] = ()
    evaluate_every: int = 20_000


def train(
    folder: Path,
    model: nn.Module,
    plan: Plan,
    pool_size: int,
    seed: int,
    step: Callable[[np.ndarray], dict[str, Tensor]],
    evaluate: Callable[[], dict[str, float]],
) -> dict[str, float]:
    """Train a model, or go on where the last checkpoint ends.

    The images of a step depend on the seed and its number alone.

    Args:
        folder: Where checkpoint.pth and log.jsonl go.
        model: Its parameters that need gradients are trained, in train mode.
        plan: Length and rates.
        pool_size: Number of scenes to draw from.
        seed: Order of the scenes.
        step: Indices of a batch to named losses.
        evaluate: Scores on test scenes; the model is in eval mode.

    Returns:
        The last scores.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizers = _optimizers(model, plan)
    steps = math.ceil(plan.images / plan.batch_size)
    every = max(1, plan.evaluate_every // plan.batch_size)
    path = folder / 'checkpoint.pth'
    start, scores, seconds = 0, {}, 0.0
    if path.is_file():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved['model'])
        for optimizer, state in zip(
            optimizers, saved['optimizers'], strict=True
        ):
            optimizer.load_state_dict(state)
        start, scores, seconds = (
            saved[key] for key in ('step', 'scores', 'seconds')
        )
    told = saved_at = time.monotonic()
    sums: dict[str, float] = {}
    for number in range(start, steps):
        model.train()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group['lr'] = group['peak'] * _schedule(number, steps)
        torch.manual_seed(stable_hash(seed, number))
        losses = step(_batch(number, plan.batch_size, pool_size, seed))
        total = torch.stack(list(losses.values())).sum()
        model.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        for name, value in losses.items():
            now_is = value.item()
            sums[name] = 0.98 * sums.get(name, now_is) + 0.02 * now_is
        done = number + 1
        if done % every == 0 or done == steps:
            model.eval()
            with torch.no_grad():
                scores = evaluate()
        now = time.monotonic()
        last = done == steps
        if last or done % every == 0 or now - told > 60:
            line: dict[str, Any] = {
                'images': done * plan.batch_size,
                'minutes': round((seconds + now - saved_at) / 60, 2),
                **{k: round(v, 4) for k, v in sums.items()},
            }
            if last or done % every == 0:
                line |= {k: round(v, 4) for k, v in scores.items()}
            with (folder / 'log.jsonl').open('a') as file:
                file.write(json.dumps(line) + '\n')
            told = now
        if last or now - saved_at > _CHECKPOINT_SECONDS:
            seconds += now - saved_at
            saved_at = now
            save_atomically(
                {
                    'model': model.state_dict(),
                    'optimizers': [o.state_dict() for o in optimizers],
                    'step': done,
                    'scores': scores,
                    'seconds': seconds,
                },
                path,
            )
    return scores


def save_atomically(content: Any, path: Path) -> None:
    """Write a file that appears only when complete."""
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    torch.save(content, temporary)
    temporary.replace(path)


def _batch(number: int, size: int, pool_size: int, seed: int) -> np.ndarray:
    """Indices of a step: one order of the whole pool after another."""
    places = number * size + np.arange(size)
    epochs = np.unique(places // pool_size)
    parts = [
        np.random.default_rng((seed, int(epoch))).permutation(pool_size)[
            places[places // pool_size == epoch] % pool_size
        ]
        for epoch in epochs
    ]
    return np.sort(np.concatenate(parts))


def _optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            muon = parameter.ndim == 2 and _named(name, plan.orthogonal)
            decay = plan.weight_decay if parameter.ndim > 1 else 0.0
            rate = 0.3 if _named(name, plan.slow) else 1.0
            key = (muon, decay, rate * plan.lr)
            groups.setdefault(key, []).append(parameter)
    adam, muon = (
        [
            {'params': p, 'weight_decay': decay, 'lr': peak, 'peak': peak}
            for (orthogonal, decay, peak), p in groups.items()
            if orthogonal == chosen
        ]
        for chosen in (False, True)
    )
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(adam, betas=(0.9, 0.98))
    ]
    if muon:
        optimizers.append(
            torch.optim.Muon(muon, adjust_lr_fn='match_rms_adamw')
        )
    return optimizers


def _named(name: str, parts: tuple[str, ...]) -> bool:
    return any(part in name for part in parts)


def _schedule(number: int, steps: int) -> float:
    """Warm-up, constant, and a cosine to zero over the last part."""
    warm_up = min(1.0, (number + 1) / _WARM_UP_STEPS)
    decayed = max(0.0, 1 - (steps - number) / (_DECAY_SHARE * steps))
    return warm_up * 0.5 * (1 + math.cos(math.pi * decayed))
