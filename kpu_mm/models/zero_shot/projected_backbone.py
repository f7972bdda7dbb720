"""ProjectedBackbone: the student in the place of a teacher's image encoder."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from ..encoder import level_masks
from ..frozen import ExternalModule
from ..student import open_student
from .teacher_encoder import check_out_type, select


@MODELS.register_module()
class ProjectedBackbone(ExternalModule):
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
        RuntimeError: If the checkpoint is broken.
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
        self.student = student.backbone
        self.link = student.link(teacher)
        self.out_type = out_type
        self.strides = self.link.levels.strides
        self.channels = self.link.channels
        self.summary_channels = self.link.summary_channels
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
        size = (images.shape[-2], images.shape[-1])
        return self.link.infer(self.student.extract(images), size)

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
        return features._replace(masks=level_masks(features.maps, mask))
