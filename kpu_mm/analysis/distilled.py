"""A distiller with its weights, and what its models say of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kpu_mm.models.backbones import KPUBackbone
from kpu_mm.models.encoder import level_masks
from kpu_mm.models.kpu_distiller import KPUDistiller
from kpu_mm.models.student import check_layout
from kpu_mm.registry import MODELS
from kpu_mm.structures import Features
from kpu_mm.weights.state_dict import load_state

Extract = Callable[[Tensor, Tensor | None], Features]


def load_distiller(
    model: Mapping[str, Any],
    checkpoint: str | Path,
    device: torch.device | None = None,
) -> KPUDistiller:
    """Build a distiller, teachers included, and load what it has learnt.

    Args:
        model: Config of a :class:`kpu_mm.KPUDistiller`.
        checkpoint: Its checkpoint.
        device: Where to. Defaults to None, the CPU.

    Returns:
        The distiller in eval mode.

    Raises:
        FileNotFoundError: If weights are missing.
        RuntimeError: If a file is broken or does not belong to the config.
        ValueError: If the config is not that of a distiller.
    """
    kind = model.get('type')
    found = MODELS.get(kind) if isinstance(kind, str) else kind
    if not isinstance(found, type) or not issubclass(found, KPUDistiller):
        raise ValueError(
            f'the model {kind!r} is no kpu_mm.KPUDistiller; pass the config '
            'of a distillation run.'
        )
    state = load_state(checkpoint)  # before minutes are spent on the rest
    check_layout(state, checkpoint)
    # nothing here runs long enough for compiling to pay
    distiller: KPUDistiller = MODELS.build({**model, 'compile': None})
    missing, unexpected = distiller.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise RuntimeError(
            f'{checkpoint} does not belong to the config: missing keys '
            f'{missing[:3]}, unexpected keys {unexpected[:3]}.'
        )
    return distiller.eval().to(device)


def extract_sentinel(
    student: KPUBackbone, images: Tensor, mask: Tensor | None = None
) -> Features:
    """What the student's ViT says by itself, without the adapter.

    Args:
        student: The student.
        images: Raw images, (B, 3, H, W).
        mask: Real pixels, (B, H, W) bool. Defaults to None, all.

    Returns:
        CLS token (B, C) and map of patch tokens (B, C, h, w), both after the
        final norm.
    """
    summary, m = student.sentinel(student.normalise(images, mask))
    return Features(summary, (m,), level_masks([m], mask))


def all_models(distiller: KPUDistiller) -> dict[str, Extract]:
    """What turns images into features: student, sentinel, each teacher.

    A student that is no KPUBackbone has no sentinel.

    Args:
        distiller: The distiller.

    Raises:
        ValueError: If a teacher has the name of another of these models.
    """
    student = distiller.student
    models: dict[str, Extract] = dict(student=student.encode)
    if isinstance(student, KPUBackbone):
        models['sentinel'] = partial(extract_sentinel, student)
    taken = sorted(set(models) & set(distiller.teachers))
    if taken:
        raise ValueError(
            f'a teacher is named {taken[0]!r}, like another model of the '
            'run; rename it in the config and the checkpoint.'
        )
    return {
        **models,
        **{
            name: teacher.encode
            for name, teacher in distiller.teachers.items()
        },
    }


def require_term(distiller: KPUDistiller, term: str) -> None:
    """Make sure that a run has trained the projectors of a term.

    Args:
        distiller: The distiller.
        term: 's2t', 't2s' or 'rec'.

    Raises:
        ValueError: If the term is off.
    """
    if term not in distiller.terms:
        raise ValueError(
            f'model.terms has no {term!r}, so the run has no projectors for '
            f'it; its terms are {sorted(distiller.terms)}.'
        )


def extract_pairs(
    distiller: KPUDistiller,
    name: str,
    images: Tensor,
    mask: Tensor | None = None,
) -> tuple[Features, Features]:
    """X and X^t of the same images, map by map.

    Args:
        distiller: The distiller.
        name: The teacher.
        images: Raw images, (B, 3, H, W).
        mask: Real pixels, (B, H, W) bool. Defaults to None, all.
    """
    link = distiller.links[name]
    targets = link.targets(distiller.teachers[name].encode(images, mask))
    return link.pair(distiller.student.encode(images, mask), targets)
