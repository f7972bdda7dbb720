"""How far apart the teachers' features are, before and after unification."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from kpu_mm.models.distillers.feature_stats import std_ratio
from kpu_mm.structures import Features, Moments, valid_vectors

Extract = Callable[[Tensor, Tensor | None], Features]


@torch.no_grad()
def measure(
    extract: Extract,
    batches: Iterable[Mapping[str, Any]],
    num_images: int,
    device: torch.device,
) -> dict[str, Moments]:
    """Moments of a model's features over the first images of a stream.

    Args:
        extract: Raw images (B, 3, H, W) and their mask -> features.
        batches: Endless batches with ``images`` and perhaps ``mask``.
        num_images: Images to look at.
        device: Where to.

    Returns:
        Moments of all values of 'summary' (if there is one) and 'map 0',
        'map 1', ..., whatever their channel.
    """
    moments: dict[str, Moments] = {}
    for batch in batches:
        images, mask = batch['images'][:num_images], batch.get('mask')
        mask = None if mask is None else mask[:num_images].to(device)
        features = extract(images.to(device), mask)
        for output, values, valid in features.outputs():
            found = Moments.of(valid_vectors(values, valid).reshape(-1, 1))
            seen = moments.get(output)
            moments[output] = found if seen is None else seen + found
        num_images -= len(images)
        if num_images <= 0:
            break
    return moments


def measure_teachers(
    extracts: Mapping[str, Extract],
    streams: Mapping[str, Iterable[Mapping[str, Any]]],
    num_images: int,
    device: torch.device,
) -> dict[str, Any]:
    """Mean and standard deviation of every output, and the teachers' gap.

    The gap is the ratio of the largest to the smallest standard deviation,
    33.4 between GroundingDINO and CLIP in KPU
    (https://arxiv.org/abs/2508.14707).

    Args:
        extracts: By teacher, what turns images into its features.
        streams: By teacher, endless batches of its own stream.
        num_images: Images of each stream to look at.
        device: Where the models are.

    Returns:
        ``teachers``: by name and output, ``mean`` and ``std``; the output
        'all maps' is over all maps together. ``ratios``: by output that all
        teachers share, the largest standard deviation over the smallest.
    """
    found = {
        name: measure(extract, streams[name], num_images, device)
        for name, extract in extracts.items()
    }
    for moments in found.values():
        maps = [m for output, m in moments.items() if output != 'summary']
        moments['all maps'] = reduce(add, maps)
    ratios = {}
    for output in ('summary', 'all maps'):
        stds = {
            name: moments[output].variance.sqrt().squeeze()
            for name, moments in found.items()
            if output in moments
        }
        if len(stds) > 1:
            ratios[output] = std_ratio(stds).item()
    return dict(
        teachers={
            name: {
                output: dict(mean=m.mean.item(), std=m.variance.sqrt().item())
                for output, m in moments.items()
            }
            for name, moments in found.items()
        },
        ratios=ratios,
    )
