"""Projectors that lead into the teachers' own spaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..level_record import TeacherLevels
from ..normalizers import AffineMap


def fold_normalizers(
    projectors: Mapping[str, nn.Module],
    state: Mapping[str, Tensor],
    levels: Mapping[str, TeacherLevels],
) -> None:
    """Undo normalisers in the last layer of each projector.

    Args:
        projectors: For each teacher its :class:`MLPProjector`, trained on
            normalised features; changed in place.
        state: State of the teachers' normalisers, each name starting with
            the teacher's; empty for none.
        levels: For each teacher, what its projector connects.
    """
    for teacher in dict.fromkeys(name.split('.')[0] for name in state):
        projector: Any = projectors.get(teacher)
        if projector is None:  # trained without s2t
            continue
        if f'{teacher}.summary.mean' in state:
            _read(state, f'{teacher}.summary').fold_into(projector.summary[-1])
        pairs = levels[teacher].pairs
        for mlp, (index, _) in zip(projector.maps, pairs, strict=True):
            _read(state, f'{teacher}.maps.{index}').fold_into(mlp[-1])


def _read(state: Mapping[str, Tensor], name: str) -> AffineMap:
    return AffineMap(
        *(state[f'{name}.{part}'] for part in ('mean', 'weight', 'inverse'))
    )
