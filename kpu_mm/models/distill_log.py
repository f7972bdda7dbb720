"""What a distillation step writes into the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from kpu_mm.structures import Features

# Longest side of the grid of places at which maps are looked at, about.
_SIDE = 16


class Comparison(NamedTuple):
    """The student and one teacher on the images of one stream.

    Args:
        losses: Each term of the loss, one value per image, (B,).
        targets: X^t, the teacher's paired maps.
        student: X, the student's maps of the pairs that t2s uses.
        unified: h_t2s(X^t); None if t2s is off.
    """

    losses: dict[str, Tensor]
    targets: Features
    student: Features
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
        h_t2s(X^t); ``varying/NAME`` and ``rank/NAME`` of X and
        ``varying_t2s/NAME`` and ``rank_t2s/NAME`` of h_t2s(X^t), see
        :func:`variation`; and ``weight/NAME``.
    """
    logs = {}
    for name, (losses, targets, student, unified) in compared.items():
        for term, loss in losses.items():
            logs[f'{term}/{name}'] = loss.detach().mean()
        logs[f'std/{name}'] = targets.std()
        logs[f'varying/{name}'], logs[f'rank/{name}'] = variation(student)
        if unified is not None:
            logs[f'std_t2s/{name}'] = unified.std()
            logs[f'varying_t2s/{name}'], logs[f'rank_t2s/{name}'] = variation(unified)
    return {**logs, **{f'weight/{n}': weight for n, weight in weights.items()}}


@torch.no_grad()
def variation(features: Features) -> tuple[Tensor, Tensor]:
    """How much of the maps differs from place to place, and in how many ways.

    With m and C the mean and the covariance of a map's vectors over all
    places of all images, the first is tr C / (tr C + |m|^2) and the second is
    the effective rank (tr C)^2 / tr C^2, the participation ratio of the
    variances along the principal axes. A space that is nearly constant has a
    share near 0; one that has collapsed to a line has rank 1.

    Large maps are looked at in a grid of places, which costs little.

    Args:
        features: Maps, each (B, C, H, W); padding is left out.

    Returns:
        The share in [0, 1] and the rank in [1, C], means over the maps.
    """
    found = []
    for m, mask in zip(features.maps, features.masks or (None,) * len(features.maps), strict=True):
        step = max(1, max(m.shape[-2:]) // _SIDE)
        # (B, C, H, W) -> (B, H, W, C) -> (N, C)
        x = m[..., ::step, ::step].float().movedim(1, -1).flatten(0, 2)
        count: Tensor | int = len(x)
        if mask is not None:
            # Zeros keep their place: a boolean index would make the host
            # wait for a GPU.
            padding = ~mask[..., ::step, ::step].flatten()[:, None]
            x = x.masked_fill(padding, 0)
            count = (~padding).sum().clamp(min=1)
        mean = x.sum(0) / count
        centred = x - mean
        if mask is not None:
            centred = centred.masked_fill(padding, 0)
        # bfloat16 would leave the covariance two digits.
        with torch.autocast(x.device.type, enabled=False):
            covariance = centred.T @ centred / count
        power = covariance.trace()
        tiny = torch.finfo(power.dtype).tiny
        share = power / (power + mean.square().sum()).clamp(min=tiny)
        rank = power.square() / covariance.square().sum().clamp(min=tiny)
        found.append(torch.stack((share, rank)))
    share, rank = torch.stack(found).mean(0)
    return share, rank


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
