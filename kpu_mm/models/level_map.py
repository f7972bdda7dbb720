"""Level mapping: which teacher map is compared with which student level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from kpu_mm.weights.state_dict import json_from_tensor, json_to_tensor


class LevelMap(NamedTuple):
    """The pairs of a teacher's maps and the student's levels.

    Args:
        strides: Pixels per cell of each of the teacher's maps.
        pairs: (teacher map, student level), one for each MLP of a projector.
            A teacher map may occur several times.
    """

    strides: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]

    def closest(self, student_strides: Sequence[int]) -> tuple[int, ...]:
        """Choose one pair for each teacher map.

        Args:
            student_strides: Strides of the student's levels.

        Returns:
            For each teacher map, the index of its pair with the student
            level of the closest stride.
        """
        return tuple(
            min(
                (k for k, (i, _) in enumerate(self.pairs) if i == index),
                key=lambda k: stride_distance(stride, student_strides[self.pairs[k][1]]),
            )
            for index, stride in enumerate(self.strides)
        )

    def weights(
        self, used: Sequence[int], student_strides: Sequence[int], joined_weight: float
    ) -> tuple[float, ...]:
        """Weigh pairs so that each teacher map counts the same.

        Args:
            used: Indices of the pairs in use, one of each map at least.
            student_strides: Strides of the student's levels.
            joined_weight: Weight of a level that joined a map, where the
                map's closest level has 1.

        Returns:
            A weight for each pair in use. Those of one map add up to one
            over the number of maps.
        """
        closest = self.closest(student_strides)
        shares = [1.0 if k in closest else joined_weight for k in used]
        maps = [self.pairs[k][0] for k in used]
        totals = [
            sum(share for share, j in zip(shares, maps, strict=True) if i == j)
            for i in range(len(self.strides))
        ]
        return tuple(share / totals[i] / len(totals) for share, i in zip(shares, maps, strict=True))

    def shrinks(
        self, used: Sequence[int], student_strides: Sequence[int], to_teacher: bool
    ) -> tuple[int, ...]:
        """How many whole rows of a map lie in a row of the map that it is resized to.

        Args:
            used: Indices of the pairs in use.
            student_strides: Strides of the student's levels.
            to_teacher: Student maps are resized to teacher maps; else
                teacher maps to student maps.
        """
        # (stride of the student's level, stride of the teacher's map)
        ends = [(student_strides[self.pairs[k][1]], self.strides[self.pairs[k][0]]) for k in used]
        return tuple(max(1, t // s if to_teacher else s // t) for s, t in ends)

    def to_tensor(self) -> Tensor:
        """Store the level map in a state dict, (N,) uint8."""
        return json_to_tensor(self._asdict())

    @classmethod
    def from_tensor(cls, state: Tensor) -> LevelMap:
        """Read what :meth:`to_tensor` wrote.

        Args:
            state: (N,) uint8.
        """
        return cls.from_dict(json_from_tensor(state))

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> LevelMap:
        """Read ``strides`` and ``pairs``, as JSON has them.

        Args:
            saved: The two lists.
        """
        return cls(tuple(saved['strides']), tuple((i, level) for i, level in saved['pairs']))


def map_levels(
    teacher_strides: Mapping[str, Sequence[int]], student_strides: Sequence[int]
) -> dict[str, LevelMap]:
    """Pair teacher maps and student levels of similar resolution.

    Each teacher map goes with the student level of the closest stride. A
    student level that no teacher map chose would never be trained, so it
    joins the teacher map of the closest stride among all teachers.

    Args:
        teacher_strides: For each teacher, the strides of its maps.
        student_strides: Strides of the student's levels.

    Returns:
        A level map for each teacher, its pairs in order.
    """
    levels = range(len(student_strides))
    pairs = {
        name: [
            (i, min(levels, key=lambda j: stride_distance(s, student_strides[j])))
            for i, s in enumerate(strides)
        ]
        for name, strides in teacher_strides.items()
    }
    chosen = {level for found in pairs.values() for _, level in found}
    # A level without a teacher map would get no gradient, which DDP refuses.
    for level in levels:
        if level in chosen:
            continue
        _, name, i = min(
            (
                (stride_distance(s, student_strides[level]), name, i)
                for name, strides in teacher_strides.items()
                for i, s in enumerate(strides)
            ),
            key=lambda found: found[0],  # the first of equals
        )
        pairs[name].append((i, level))
    return {
        name: LevelMap(tuple(teacher_strides[name]), tuple(sorted(found)))
        for name, found in pairs.items()
    }


def stride_distance(a: float, b: float) -> float:
    """How many octaves lie between two strides."""
    # Ratios count, not differences: 4 is as far from 8 as 16 from 32.
    return abs(math.log2(a / b))
