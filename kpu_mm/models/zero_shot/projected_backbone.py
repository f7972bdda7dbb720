"""ProjectedBackbone: the student in the place of a teacher's image encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from ..level_record import TeacherLevels
from ..projectors.resize import bilinear
from ..student import open_student
from ..teachers.base_teacher import resize_mask
from ..unseen import Unseen
from .teacher_encoder import check_out_type, select


@MODELS.register_module()
class ProjectedBackbone(Unseen):
    """A frozen student whose features are projected into a teacher's space.

    Inference of KPU (https://arxiv.org/abs/2508.14707): the s2t projectors
    give what the teacher's own image encoder would give, so the teacher's
    decoder can go on from there. Each map of the teacher comes from the
    student level of the closest stride, resized to ceil(H / stride) x
    ceil(W / stride). Images come in as every OpenMMLab backbone takes them,
    normalised by the data preprocessor with ImageNet's mean and standard
    deviation (RGB); :meth:`encode` takes raw ones. Its weights come from
    ``source`` and are absent from checkpoints.

    Args:
        source: A checkpoint of a distillation run, or a folder that
            ``tools/export.py`` wrote.
        teacher: Name of the teacher in the run's config.
        config: Config of the run; None takes the one beside the checkpoint,
            or the folder's own. Defaults to None.
        out_type: What :meth:`forward` gives: 'maps' or 'summary'. Defaults
            to 'maps'.

    Raises:
        FileNotFoundError: If something is missing.
        RuntimeError: If the checkpoint is broken, or does not record which
            levels its projectors take.
        ValueError: If the student has no such teacher, or that teacher no
            summary.
    """

    def __init__(
        self,
        source: str | Path,
        teacher: str,
        config: str | Path | None = None,
        out_type: str = 'maps',
    ) -> None:
        super().__init__()
        student = open_student(source, config)
        if teacher not in student.projectors:
            raise ValueError(
                f"the student '{source}' has no projector into a teacher "
                f'{teacher!r}; it has those of {sorted(student.projectors)}.'
            )
        if teacher not in student.levels:
            raise RuntimeError(
                f"'{source}' does not record which student level each "
                'projector takes: load its checkpoint into the distiller of '
                'its config and save it again, which adds the record.'
            )
        levels = student.levels[teacher]
        self.student = student.backbone
        self.strides = levels.strides
        self.pairs = closest_pairs(levels, student.backbone.strides)
        projector: Any = student.projectors[teacher]
        projector.maps = nn.ModuleList(
            projector.maps[mlp] for mlp, _ in self.pairs
        )
        self.projector = projector
        self.out_type = out_type
        self.summary_channels = (
            None
            if projector.summary is None
            else projector.summary[-1].out_features
        )
        self.channels = tuple(mlp[-1].out_features for mlp in projector.maps)
        check_out_type(out_type, self.summary_channels)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features as OpenMMLab's necks and heads take them.

        Args:
            images: Normalised images, (B, 3, H, W), H and W from 32.

        Returns:
            The teacher's maps, from fine to coarse (B, C_i, H_i, W_i), or
            for ``out_type='summary'`` one tensor (B, D).
        """
        return select(self.extract(images), self.out_type)

    def extract(self, images: Tensor) -> Features:
        """Summary and maps in the teacher's space.

        Args:
            images: Normalised images, (B, 3, H, W).
        """
        height, width = images.shape[-2:]
        features = self.student.extract(images)
        maps = tuple(
            bilinear(
                features.maps[level],
                (math.ceil(height / stride), math.ceil(width / stride)),
            )
            for stride, (_, level) in zip(
                self.strides, self.pairs, strict=True
            )
        )
        projected: Features = self.projector(Features(features.summary, maps))
        return projected

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """What the teacher would say of raw images.

        Args:
            images: RGB in [0, 255], (B, 3, H, W).
            mask: True where a pixel is real and not padding, (B, H, W)
                bool; None if all are. Defaults to None.

        Returns:
            Summary and maps; with masks of the maps if ``mask`` is given.
        """
        features = self.extract(self.student.normalise(images, mask))
        if mask is None:
            return features
        return features._replace(
            masks=tuple(
                resize_mask(mask, m.shape[-2:])[:, None] for m in features.maps
            )
        )


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
