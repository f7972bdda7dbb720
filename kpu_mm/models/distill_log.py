"""What a distillation step writes into the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from kpu_mm.structures import Features


class Comparison(NamedTuple):
    """The student and one teacher on the images of one stream.

    Args:
        losses: Each term of the loss, one value per image, (B,).
        targets: X^t, the teacher's paired maps.
        unified: h_t2s(X^t); None if t2s is off.
    """

    losses: dict[str, Tensor]
    targets: Features
    unified: Features | None


def log_values(
    compared: Mapping[str, Comparison], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Values of one forward pass.

    Args:
        compared: Comparisons by the name that the log gives a teacher.
        weights: Each teacher's weight.

    Returns:
        ``s2t/NAME``, ``t2s/NAME`` and ``rec/NAME``, the means of the terms;
        ``std/NAME`` and ``std_t2s/NAME``, the standard deviations of X^t and
        h_t2s(X^t), and ``weight/NAME``.
    """
    logs = {}
    for name, (losses, targets, unified) in compared.items():
        for term, loss in losses.items():
            logs[f'{term}/{name}'] = loss.detach().mean()
        logs[f'std/{name}'] = targets.std()
        if unified is not None:
            logs[f'std_t2s/{name}'] = unified.std()
    return {**logs, **{f'weight/{n}': weight for n, weight in weights.items()}}


def std_ratios(logs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The teacher gap, before and after unification.

    Args:
        logs: What :func:`log_values` gave for all streams.

    Returns:
        ``std_ratio`` and ``std_t2s_ratio``, the largest standard deviation
        over the smallest; empty for one teacher.
    """
    ratios = {}
    for key in ('std', 'std_t2s'):
        found = [v for k, v in logs.items() if k.startswith(key + '/')]
        if len(found) > 1:
            # on the device: the log waits for it once, with all values
            low, high = torch.stack(found).aminmax()
            ratios[f'{key}_ratio'] = high / low
    return ratios
