"""TeacherHead: from the student's pyramid to what a teacher would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import nn

from kpu_mm.structures import Features

from ..level_record import TeacherLevels
from .mlp_projector import MLPProjector, project_map


class TeacherHead(nn.Module):
    """The s2t projector of one teacher with its choice of student levels.

    KPU (https://arxiv.org/abs/2508.14707) at inference: each map of the
    teacher comes from the student level of the closest stride, resized to
    the teacher's grid and projected.

    Args:
        projector: The trained projector.
        levels: What its MLPs connect.
        student_strides: Strides of the student's levels.
    """

    def __init__(
        self,
        projector: MLPProjector,
        levels: TeacherLevels,
        student_strides: Sequence[int],
    ) -> None:
        super().__init__()
        chosen = closest_pairs(levels, student_strides)
        summary: Any = projector.summary
        maps: Any = [projector.maps[mlp] for mlp, _ in chosen]
        self.summary = summary
        self.maps = nn.ModuleList(maps)
        self.levels = tuple(level for _, level in chosen)
        self.strides = levels.strides
        self.student_strides = tuple(student_strides)
        self.summary_channels: int | None = (
            None if summary is None else summary[-1].out_features
        )
        self.channels: tuple[int, ...] = tuple(
            mlp[-1].out_features for mlp in maps
        )

    def forward(self, features: Features, size: tuple[int, int]) -> Features:
        """Project the student's features.

        Args:
            features: The student's summary and all of its maps.
            size: Height and width of the images.

        Returns:
            Summary (B, D), None for a teacher without one, and the teacher's
            maps, (B, C_i, ceil(H / s_i), ceil(W / s_i)).
        """
        summary = None
        if self.summary is not None and features.summary is not None:
            summary = self.summary(features.summary)
        maps = []
        for mlp, level, stride in zip(
            self.maps, self.levels, self.strides, strict=True
        ):
            m = features.maps[level]
            if stride != self.student_strides[level]:
                # not -(-side // stride): ONNX divides towards zero
                grid = tuple((side + stride - 1) // stride for side in size)
                m = F.interpolate(
                    m, grid, mode='bilinear', align_corners=False
                )
            maps.append(project_map(mlp, m))
        return Features(summary, tuple(maps))


def closest_pairs(
    levels: TeacherLevels, student_strides: Sequence[int]
) -> list[tuple[int, int]]:
    """Choose where a teacher map was distilled into several levels.

    Args:
        levels: What the projector's MLPs connect.
        student_strides: Strides of the student's levels.

    Returns:
        For each teacher map, the MLP and the student level of the closest
        stride.
    """

    def distance(mlp: int) -> float:
        index, level = levels.pairs[mlp]
        return abs(math.log2(levels.strides[index] / student_strides[level]))

    chosen = []
    for index in range(len(levels.strides)):
        mlps = [i for i, (m, _) in enumerate(levels.pairs) if m == index]
        mlp = min(mlps, key=distance)
        chosen.append((mlp, levels.pairs[mlp][1]))
    return chosen
