"""A training loop that can be killed at any time and goes on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from kpu_mm.datasets.hashing import stable_hash

_CHECKPOINT_SECONDS = 90.0
_LOG_SECONDS = 60.0
_WARM_UP_STEPS = 100
_DECAY_SHARE = 0.35


class Plan(NamedTuple):
    """How long and how fast a stage learns.

    Args:
        images: Images in all.
        batch_size: Images of a step.
        lr: Peak learning rate, which decays in the last third of a cycle.
        weight_decay: Of matrices; vectors have none. Defaults to 0.02.
        slow: Parts of names of parameters that learn at 0.3 of the rate.
            Defaults to ().
        orthogonal: Parts of names of matrices that `Muon
            <https://kellerjordan.github.io/posts/muon/>`_ trains instead of
            AdamW. Defaults to ().
        evaluate_every: Images between two evaluations. Defaults to 20000.
        cycles: Equal parts of the training; the rate restarts from its peak
            in each. Defaults to 1.
    """

    images: int
    batch_size: int
    lr: float
    weight_decay: float = 0.02
    slow: tuple[str, ...] = ()
    orthogonal: tuple[str, ...] = ()
    evaluate_every: int = 20_000
    cycles: int = 1


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

    The images of a step and its random numbers depend on the seed and its
    number alone.

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
    steps = math.ceil(plan.images / plan.batch_size)
    cycle = steps // plan.cycles
    every = max(1, plan.evaluate_every // plan.batch_size)
    run = _Run(folder, model, _optimizers(model, plan))
    while run.step < steps:
        run.set_rate(_schedule(run.step % cycle, cycle))
        torch.manual_seed(stable_hash(seed, run.step))
        indices = _batch(run.step, plan.batch_size, pool_size, seed)
        run.learn(step(indices))
        if run.step % every == 0 or run.step == steps:
            model.eval()
            with torch.no_grad():
                run.scores = evaluate()
            model.train()
            run.log(plan.batch_size, run.scores)
        run.log_now_and_then(plan.batch_size)
        run.save_now_and_then(last=run.step == steps)
    return run.scores


class _Run:
    """A model on its way, and what its checkpoint holds."""

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
    ) -> None:
        self.step = 0
        self.scores: dict[str, float] = {}
        self._folder = folder
        self._model = model.train()
        self._optimizers = optimizers
        self._losses: dict[str, float] = {}
        self._seconds = 0.0
        if self._checkpoint.is_file():
            self._load()
        self._saved = self._logged = time.monotonic()

    @property
    def _checkpoint(self) -> Path:
        return self._folder / 'checkpoint.pth'

    def set_rate(self, factor: float) -> None:
        """Set learning rates to a part of their peak."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group['lr'] = factor * group['peak']

    def learn(self, losses: Mapping[str, Tensor]) -> None:
        """Take a step down the sum of the losses."""
        self._model.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        for name, loss in losses.items():
            value = loss.item()
            before = self._losses.get(name, value)
            self._losses[name] = 0.98 * before + 0.02 * value
        self.step += 1

    def log_now_and_then(self, batch_size: int) -> None:
        """Log the losses if the last line is a minute old."""
        if time.monotonic() - self._logged > _LOG_SECONDS:
            self.log(batch_size, {})

    def log(self, batch_size: int, scores: Mapping[str, float]) -> None:
        """Append a line to the log."""
        self._logged = time.monotonic()
        seconds = self._seconds + self._logged - self._saved
        line = {
            'images': self.step * batch_size,
            'minutes': seconds / 60,
            **self._losses,
            **scores,
        }
        rounded = {name: round(value, 4) for name, value in line.items()}
        with (self._folder / 'log.jsonl').open('a') as file:
            file.write(json.dumps(rounded) + '\n')

    def save_now_and_then(self, last: bool) -> None:
        """Save a checkpoint if the one on disk is old, or this the last."""
        now = time.monotonic()
        if not last and now - self._saved < _CHECKPOINT_SECONDS:
            return
        self._seconds += now - self._saved
        self._saved = now
        content = {
            'model': self._model.state_dict(),
            'optimizers': [o.state_dict() for o in self._optimizers],
            'step': self.step,
            'scores': self.scores,
            'seconds': self._seconds,
        }
        temporary = self._checkpoint.with_suffix('.tmp')
        torch.save(content, temporary)
        temporary.replace(self._checkpoint)

    def _load(self) -> None:
        saved = torch.load(self._checkpoint, weights_only=True)
        self._model.load_state_dict(saved['model'])
        for optimizer, state in zip(
            self._optimizers, saved['optimizers'], strict=True
        ):
            optimizer.load_state_dict(state)
        self.step, self.scores = saved['step'], saved['scores']
        self._seconds = saved['seconds']


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
            is_muon = parameter.ndim == 2 and _named(name, plan.orthogonal)
            decay = plan.weight_decay if parameter.ndim > 1 else 0.0
            rate = 0.3 if _named(name, plan.slow) else 1.0
            key = (is_muon, decay, rate * plan.lr)
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
