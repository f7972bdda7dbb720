"""How alike the student and each teacher are, level by level."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from kpu_mm.models.backbones import KPUBackbone
from kpu_mm.models.kpu_distiller import KPUDistiller
from kpu_mm.models.losses import cosine_loss, masked_mean
from kpu_mm.structures import Features, resize_like

from .batches import Batch
from .distilled import extract_pairs, extract_sentinel
from .streaming_cka import StreamingCKA


class Agreement:
    """Cosine, mean squared error and CKA of features in one space.

    Cosine and error are means over an image's positions, then over images, as
    L_align takes them.
    """

    def __init__(self) -> None:
        self.images = 0
        self.cosine = 0.0
        self.mse = 0.0
        self.cka = StreamingCKA()

    def add(
        self, first: Tensor, second: Tensor, mask: Tensor | None = None
    ) -> None:
        """Take in a batch.

        Args:
            first: (B, C) or (B, C, H, W).
            second: The same shape.
            mask: Which positions count, (B, 1, H, W) bool. Defaults to None,
                all.
        """
        self.cka.add(first, second, mask)
        if first.ndim == 2:  # a summary is a map of one position
            first, second = first[..., None, None], second[..., None, None]
        first, second = first.double(), second.double()
        cosine = 1 - cosine_loss(first, second)
        error = (first - second).square().mean(1)
        self.images += len(first)
        self.cosine += masked_mean(cosine, mask).sum().item()
        self.mse += masked_mean(error, mask).sum().item()

    def result(self) -> dict[str, float]:
        """``cosine``, ``mse`` and ``cka``."""
        return dict(
            cosine=self.cosine / self.images,
            mse=self.mse / self.images,
            cka=self.cka.value(),
        )


def outputs_of(
    first: Features, second: Features
) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """What two models have in common: summaries, then maps with their mask.

    Args:
        first: Features.
        second: As many maps, of the same sizes.
    """
    found: list[tuple[Tensor, Tensor, Tensor | None]] = []
    if first.summary is not None and second.summary is not None:
        found.append((first.summary, second.summary, None))
    for i, (a, b) in enumerate(zip(first.maps, second.maps, strict=True)):
        masks = [f.masks[i] for f in (first, second) if f.masks is not None]
        mask = torch.stack(masks).all(0) if masks else None
        found.append((a, b, mask))
    return found


def names_of(distiller: KPUDistiller, name: str) -> list[str]:
    """What the outputs of a teacher that the student learns are called.

    Args:
        distiller: The distiller.
        name: The teacher.

    Returns:
        'summary' (if there is one) and 'map 0, 14 → 16', ...: a teacher's map,
        its stride, and that of the student's level paired with it.
    """
    teacher, strides = distiller.teachers[name], distiller.student.strides
    summary = [] if teacher.summary_channels is None else ['summary']
    return summary + [
        f'map {i}, {teacher.strides[i]} → {strides[level]}'
        for i, level in distiller.links[name].levels.pairs
    ]


@torch.no_grad()
def measure_agreement(
    distiller: KPUDistiller, name: str, batches: Iterable[Batch]
) -> dict[str, dict[str, float]]:
    """Compare the student with one teacher.

    Args:
        distiller: A distiller with the term 's2t'.
        name: The teacher.
        batches: Images.

    Returns:
        For each of :func:`names_of`, between h_s2t(X) and X^t ``cosine``,
        ``mse`` and ``cka``; then CKA of X^t with the student's own features
        (``cka_student``) and with the sentinel's (``cka_sentinel``, if there
        is one), which need no projector.
    """
    outputs = names_of(distiller, name)
    projected = {output: Agreement() for output in outputs}
    own: dict[str, dict[str, StreamingCKA]] = {}
    for images, mask in batches:
        student, teacher = extract_pairs(distiller, name, images, mask)
        guess = distiller.links[name].to_teacher(student, like=teacher)
        add_outputs(projected, guess, teacher)
        views = dict(student=student)
        if isinstance(distiller.student, KPUBackbone):
            sentinel = extract_sentinel(distiller.student, images, mask)
            # its one map beside each of the teacher's
            views['sentinel'] = sentinel.select([0] * len(teacher.maps))
        for view, features in views.items():
            found = own.setdefault(view, {o: StreamingCKA() for o in outputs})
            add_outputs(found, resize_like(features, teacher), teacher)
    return {
        output: {
            **projected[output].result(),
            **{
                f'cka_{view}': found[output].value()
                for view, found in own.items()
            },
        }
        for output in outputs
    }


def add_outputs(
    found: Mapping[str, Agreement | StreamingCKA],
    first: Features,
    second: Features,
) -> None:
    """Take in what two models have in common of a batch.

    Args:
        found: By output, in the order of :func:`outputs_of`.
        first: Features.
        second: As many maps, of the same sizes.
    """
    for measure, values in zip(
        found.values(), outputs_of(first, second), strict=True
    ):
        measure.add(*values)
