"""What the student says of the same images at other sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from kpu_mm.models.kpu_distiller import KPUDistiller
from kpu_mm.structures import resize_like

from .agreement import Agreement, add_outputs, names_of
from .batches import Batch


@torch.no_grad()
def sweep(
    distiller: KPUDistiller,
    batches: Mapping[int, Iterable[Batch]],
    reference: int,
) -> dict[str, Any]:
    """Compare the student with its teachers and with itself at each size.

    Mode switching (RADIOv2.5, https://arxiv.org/abs/2412.07679): a student
    that met each teacher at one resolution alone may imitate a teacher at
    that resolution only, and change its features at once in between.

    Args:
        distiller: A distiller with the term 's2t'.
        batches: By size, the same images in the same order.
        reference: The size with which the student is compared; one of those
            of ``batches``.

    Returns:
        ``teachers``: by name, output and size, ``cosine``, ``mse`` and
        ``cka`` of h_s2t(X) and X^t, which sees the image at that size too.
        ``student``: by output and size, the same of the student's own
        features and its features at the reference size.

    Raises:
        ValueError: If the reference is no size of ``batches``.
    """
    if reference not in batches:
        raise ValueError(
            f'the reference size {reference} is none of {sorted(batches)}.'
        )
    strides = distiller.student.strides
    outputs = ['summary', *(f'stride {stride}' for stride in strides)]
    itself = {size: {o: Agreement() for o in outputs} for size in batches}
    teachers = {
        name: {
            size: {o: Agreement() for o in names_of(distiller, name)}
            for size in batches
        }
        for name in distiller.teachers
    }
    for group in zip(*batches.values(), strict=True):
        images = {s: b.images for s, b in zip(batches, group, strict=True)}
        encode = distiller.student.encode
        students = {size: encode(i) for size, i in images.items()}
        like = students[reference]
        for size, student in students.items():
            add_outputs(itself[size], resize_like(student, like), like)
            for name, found in teachers.items():
                link, teacher = distiller.links[name], distiller.teachers[name]
                x, x_t = link.pair(
                    student, link.targets(teacher.encode(images[size]))
                )
                add_outputs(found[size], link.to_teacher(x, like=x_t), x_t)
    return dict(
        teachers={name: _by_output(found) for name, found in teachers.items()},
        student=_by_output(itself),
    )


def _by_output(
    found: Mapping[int, Mapping[str, Agreement]],
) -> dict[str, dict[int, dict[str, float]]]:
    outputs = next(iter(found.values()))
    return {
        output: {size: f[output].result() for size, f in found.items()}
        for output in outputs
    }
