"""A distiller with its weights, and the features of its models."""

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

Encode = Callable[[Tensor, Tensor | None], Features]


def load_distiller(
    model: Mapping[str, Any],
    checkpoint: str | Path,
    device: torch.device | None = None,
    term: str | None = None,
) -> KPUDistiller:
    """Build a distiller, teachers included, and load its weights.

    Args:
        model: Config of a :class:`kpu_mm.KPUDistiller`.
        checkpoint: Its checkpoint.
        device: Where to. Defaults to None, the CPU.
        term: The loss term whose projectors are needed, 's2t', 't2s' or
            'rec'. Defaults to None, none.

    Returns:
        The distiller in float32 and in eval mode.

    Raises:
        FileNotFoundError: If weights are missing.
        RuntimeError: If a file is broken or does not belong to the config.
        ValueError: If the config is not that of a distiller, or the term is
            off.
    """
    kind = model.get('type')
    found = MODELS.get(kind) if isinstance(kind, str) else kind
    if not isinstance(found, type) or not issubclass(found, KPUDistiller):
        raise ValueError(
            f'the model {kind!r} is no kpu_mm.KPUDistiller; pass the config of a distillation run.'
        )
    # Read first: a wrong file is told before minutes are spent on the rest.
    state = load_state(checkpoint)
    check_layout(state, checkpoint)
    # Nothing here runs long enough for compiling to pay.
    distiller: KPUDistiller = MODELS.build({**model, 'compile': None})
    if term is not None and term not in distiller.terms:
        raise ValueError(
            f'model.terms has no {term!r}, so the run has no projectors for '
            f'it; its terms are {sorted(distiller.terms)}.'
        )
    missing, unexpected = distiller.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise RuntimeError(
            f'{checkpoint} does not belong to the config: missing keys '
            f'{missing[:3]}, unexpected keys {unexpected[:3]}.'
        )
    return distiller.eval().to(device)


def extract_sentinel(student: KPUBackbone, images: Tensor, mask: Tensor | None = None) -> Features:
    """Compute the features of the student's ViT without the adapter.

    Args:
        student: The student.
        images: Raw images, (B, 3, H, W).
        mask: Real pixels, (B, H, W) bool. Defaults to None, all.

    Returns:
        Summary (B, C) and map of patch tokens (B, C, h, w).
    """
    summary, m = student.sentinel(student.to_sentinel(student.normalise(images, mask)))
    return Features(summary, (m,), level_masks([m], mask))


def all_models(distiller: KPUDistiller, projected: bool = False) -> dict[str, Encode]:
    """Collect what turns images into features.

    Args:
        distiller: The distiller.
        projected: Whether to add ``student as NAME``, the student in the
            space of each teacher, if there is the term 's2t'. Defaults to
            False.

    Returns:
        'student', 'sentinel' (of a KPUBackbone) and each teacher.

    Raises:
        ValueError: If a teacher has the name of another of these models.
    """
    student = distiller.student
    models: dict[str, Encode] = dict(student=student.encode)
    if isinstance(student, KPUBackbone):
        models['sentinel'] = partial(extract_sentinel, student)
    if taken := sorted(set(models) & set(distiller.teachers)):
        raise ValueError(
            f'a teacher is named {taken[0]!r}, like another model of the '
            'run; rename it in the config and the checkpoint.'
        )
    for name, teacher in distiller.teachers.items():
        models[name] = teacher.encode
    if projected and 's2t' in distiller.terms:
        for name in distiller.teachers:
            models[f'student as {name}'] = partial(_infer, distiller, name)
    return models


def _infer(distiller: KPUDistiller, name: str, images: Tensor, mask: Tensor | None) -> Features:
    """The student's features in a teacher's own space."""
    size = (images.shape[-2], images.shape[-1])
    features = distiller.student.encode(images, mask)
    return distiller.links[name].infer(features, size)


def extract_pairs(
    distiller: KPUDistiller, name: str, images: Tensor, mask: Tensor | None = None
) -> tuple[Features, Features]:
    """Compute X and X^t of the same images, map by map.

    Args:
        distiller: The distiller.
        name: The teacher.
        images: Raw images, (B, 3, H, W).
        mask: Real pixels, (B, H, W) bool. Defaults to None, all.
    """
    link = distiller.links[name]
    targets = link.targets(distiller.teachers[name].encode(images, mask))
    return link.pair(distiller.student.encode(images, mask), targets)
