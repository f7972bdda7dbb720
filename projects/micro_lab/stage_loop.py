"""A training loop that continues after it was killed."""

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

from kpu_mm.datasets import stable_hash

_CHECKPOINT_SECONDS = 90.0
_LOG_SECONDS = 60.0
_WARM_UP_STEPS = 100
# Share of a cycle in which the learning rate decays.
_DECAY_SHARE = 0.35


class Plan(NamedTuple):
    """Length and learning rates of a stage.

    Args:
        images: Number of images in all.
        batch_size: Images of a step.
        lr: Peak learning rate, which decays in the last third of a cycle.
        weight_decay: Weight decay of matrices; vectors have none. Defaults
            to 0.02.
        slow: Parts of the names of parameters whose learning rate is 0.3 of
            the others'. Defaults to ().
        orthogonal: Parts of the names of matrices that `Muon
            <https://kellerjordan.github.io/posts/muon/>`_ trains instead of
            AdamW. Defaults to ().
        evaluate_every: Images between two evaluations. Defaults to 20000.
        cycles: Number of equal parts, in each of which the learning rate
            starts again from its peak. Defaults to 1.
    """

    images: int
    batch_size: int
    lr: float
    weight_decay: float = 0.02
    slow: tuple[str, ...] = ()
    orthogonal: tuple[str, ...] = ()
    evaluate_every: int = 20_000
    cycles: int = 1


def train_stage(
    folder: Path,
    model: nn.Module,
    plan: Plan,
    pool_size: int,
    seed: int,
    step: Callable[[np.ndarray], dict[str, Tensor]],
    evaluate: Callable[[], dict[str, float]],
) -> dict[str, float]:
    """Train a model, or continue from its last checkpoint.

    Images and random numbers of a step depend on the seed and the step alone,
    so a training that was killed ends with equal weights.

    Args:
        folder: Folder of checkpoint.pth and log.jsonl.
        model: The model, whose parameters that need gradients are trained.
        plan: Length and learning rates.
        pool_size: Number of scenes in the pool.
        seed: Seed of the order of the scenes.
        step: From indices of a batch to named losses.
        evaluate: Returns scores; the model is in eval mode.

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
        run.log_if_due(plan.batch_size)
        run.save_if_due(last=run.step == steps)
    return run.scores


class _Run:
    """The state of a training, as the checkpoint stores it."""

    def __init__(
        self, folder: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer]
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
        """Set the learning rates to a share of their peaks."""
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group['lr'] = factor * group['peak']

    def learn(self, losses: Mapping[str, Tensor]) -> None:
        """Take an optimiser step on the sum of the losses."""
        self._model.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        for name, loss in losses.items():
            # The log shows a running mean.
            value = loss.item()
            before = self._losses.get(name, value)
            self._losses[name] = 0.98 * before + 0.02 * value
        self.step += 1

    def log_if_due(self, batch_size: int) -> None:
        """Log the losses if the last line is a minute old."""
        if time.monotonic() - self._logged > _LOG_SECONDS:
            self.log(batch_size, {})

    def log(self, batch_size: int, scores: Mapping[str, float]) -> None:
        """Append a line to the log."""
        self._logged = time.monotonic()
        seconds = self._seconds + self._logged - self._saved
        line = {'images': self.step * batch_size, 'minutes': seconds / 60, **self._losses, **scores}
        rounded = {name: round(value, 4) for name, value in line.items()}
        with (self._folder / 'log.jsonl').open('a') as file:
            file.write(json.dumps(rounded) + '\n')

    def save_if_due(self, last: bool) -> None:
        """Save a checkpoint if the stored one is old or this is the last."""
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
        # A kill while writing leaves the previous checkpoint intact.
        temporary = self._checkpoint.with_suffix('.tmp')
        torch.save(content, temporary)
        temporary.replace(self._checkpoint)

    def _load(self) -> None:
        saved = torch.load(self._checkpoint, weights_only=True)
        self._model.load_state_dict(saved['model'])
        for optimizer, state in zip(self._optimizers, saved['optimizers'], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.scores = saved['step'], saved['scores']
        self._seconds = saved['seconds']


def _batch(number: int, size: int, pool_size: int, seed: int) -> np.ndarray:
    """Indices of a step; every epoch is a new order of the whole pool."""
    # A batch may span two epochs.
    places = number * size + np.arange(size)
    epochs = np.unique(places // pool_size)
    parts = [
        np.random.default_rng((seed, int(epoch))).permutation(pool_size)[
            places[places // pool_size == epoch] % pool_size
        ]
        for epoch in epochs
    ]
    # Sorted, because the pool is memory-mapped.
    return np.sort(np.concatenate(parts))


def _optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_muon = parameter.ndim == 2 and _named(name, plan.orthogonal)
            # Vectors, such as biases and norms, have no weight decay.
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
        # The betas of CLIP's ViT (https://arxiv.org/abs/2103.00020).
        torch.optim.AdamW(adam, betas=(0.9, 0.98))
    ]
    if muon:
        optimizers.append(torch.optim.Muon(muon, adjust_lr_fn='match_rms_adamw'))
    return optimizers


def _named(name: str, parts: tuple[str, ...]) -> bool:
    return any(part in name for part in parts)


def _schedule(number: int, steps: int) -> float:
    """Learning rate factor: warm-up, constant, then a cosine to zero."""
    warm_up = min(1.0, (number + 1) / _WARM_UP_STEPS)
    decayed = max(0.0, 1 - (steps - number) / (_DECAY_SHARE * steps))
    return warm_up * 0.5 * (1 + math.cos(math.pi * decayed))
