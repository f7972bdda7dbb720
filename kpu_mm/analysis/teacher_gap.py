"""How far apart the teachers' features are, before and after unification."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial, reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from kpu_mm.models.kpu_distiller import KPUDistiller
from kpu_mm.models.teachers import BaseTeacher
from kpu_mm.structures import Features, Moments, valid_vectors

from .batches import Batch
from .distilled import Extract

# each model of a space, and what its maps are called
Space = dict[str, tuple[Extract, list[str]]]


def own_space(teachers: Mapping[str, BaseTeacher]) -> Space:
    """The teachers as they are.

    Args:
        teachers: By name.
    """
    return {
        name: (
            teacher.encode,
            [f'map {i}, stride {s}' for i, s in enumerate(teacher.strides)],
        )
        for name, teacher in teachers.items()
    }


def common_space(distiller: KPUDistiller) -> Space:
    """The teachers after h_t2s; maps are named after the student's levels.

    Args:
        distiller: A distiller with the term 't2s'.
    """
    strides = distiller.student.strides
    return {
        name: (
            partial(_unified, distiller, name),
            [
                f'stride {strides[link.levels.pairs[k][1]]}'
                for k in link.unified
            ],
        )
        for name, link in distiller.links.items()
    }


def _unified(
    distiller: KPUDistiller, name: str, images: Tensor, mask: Tensor | None
) -> Features:
    """h_t2s(X^t), on the teacher's own grids."""
    link = distiller.links[name]
    targets = link.targets(distiller.teachers[name].encode(images, mask))
    maps = [link.levels.pairs[k][0] for k in link.unified]
    return link.to_student(targets.select(maps))


@torch.no_grad()
def measure(
    extract: Extract, outputs: Sequence[str], batches: Iterable[Batch]
) -> dict[str, Moments]:
    """Moments of a model's features.

    Args:
        extract: Raw images (B, 3, H, W) and their mask -> features.
        outputs: What its maps are called; those of one name count together.
        batches: Images.

    Returns:
        Moments of all values of 'summary' (if there is one), of each output
        whatever the channel, and of all maps together.
    """
    moments: dict[str, Moments] = {}
    for images, mask in batches:
        features = extract(images, mask)
        names = ['summary'] * (features.summary is not None) + [*outputs]
        for output, (_, values, valid) in zip(
            names, features.outputs(), strict=True
        ):
            found = Moments.of(valid_vectors(values, valid).reshape(-1, 1))
            seen = moments.get(output)
            moments[output] = found if seen is None else seen + found
    maps = [m for output, m in moments.items() if output != 'summary']
    moments['all maps'] = reduce(add, maps)
    return moments


def measure_teachers(
    space: Space, batches: Mapping[str, Iterable[Batch]]
) -> dict[str, Any]:
    """Mean and standard deviation of every output, and the teachers' gap.

    The gap is the ratio of the largest to the smallest standard deviation:
    in KPU (https://arxiv.org/abs/2508.14707) 33.4 between GroundingDINO and
    CLIP in their own spaces, 4.5 in the common one.

    Args:
        space: The teachers, as they are or after unification.
        batches: Images for each of them.

    Returns:
        ``teachers``: by name and output, ``mean`` and ``std``; the output
        'all maps' is over all maps together. ``ratios``: by output that
        several teachers share, the largest standard deviation over the
        smallest.
    """
    found = {
        name: measure(extract, outputs, batches[name])
        for name, (extract, outputs) in space.items()
    }
    ratios = {}
    for output in dict.fromkeys(o for m in found.values() for o in m):
        stds = [
            moments[output].variance.sqrt().squeeze()
            for moments in found.values()
            if output in moments
        ]
        if len(stds) > 1:
            low, high = torch.stack(stds).aminmax()
            ratios[output] = (high / low).item()
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
