"""Which map of which teacher is compared with which student level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kpu_mm.structures import Features

Pairs = list[tuple[int, int]]


def pair_levels(
    teacher_strides: Mapping[str, Sequence[int]],
    student_strides: Sequence[int],
) -> dict[str, Pairs]:
    """Pair maps of similar resolution.

    Each teacher map goes with the student level of the closest stride. A
    student level that no teacher map chose would never be trained, so it
    joins the teacher map of the closest stride among all teachers.

    Args:
        teacher_strides: For each teacher, the strides of its maps.
        student_strides: Strides of the student's levels.

    Returns:
        For each teacher, (teacher map, student level) pairs in order.
    """

    def distance(a: float, b: float) -> float:
        return abs(math.log2(a / b))

    pairs: dict[str, Pairs] = {
        name: [
            (
                i,
                min(
                    range(len(student_strides)),
                    key=lambda j: distance(stride, student_strides[j]),
                ),
            )
            for i, stride in enumerate(strides)
        ]
        for name, strides in teacher_strides.items()
    }
    chosen = {level for chosen_by in pairs.values() for _, level in chosen_by}
    for level in sorted(set(range(len(student_strides))) - chosen):
        name, i = min(
            (
                (name, i)
                for name, strides in teacher_strides.items()
                for i in range(len(strides))
            ),
            key=lambda t: distance(
                teacher_strides[t[0]][t[1]], student_strides[level]
            ),
        )
        pairs[name].append((i, level))
    return {name: sorted(chosen_by) for name, chosen_by in pairs.items()}


def select(features: Features, indices: Sequence[int]) -> Features:
    """Take some maps, some perhaps twice.

    Args:
        features: Summary and maps.
        indices: Which maps, in this order.
    """
    masks = features.masks
    return Features(
        features.summary,
        tuple(features.maps[i] for i in indices),
        tuple(masks[i] for i in indices) if masks is not None else None,
    )
