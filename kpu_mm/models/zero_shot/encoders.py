"""Image encoders in the place of a teacher's own: the student, the teacher."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from ..backbones.base_backbone import check_choice
from ..encoder import level_masks
from ..frozen import ExternalModule
from ..student import open_student
from ..teachers import TeacherBank


class TeacherSpaceEncoder(ExternalModule):
    """A frozen encoder whose features are in a teacher's space.

    Its weights come from files of their own and are absent from checkpoints.

    Args:
        out_type: 'maps' or 'summary'.
        channels: Channels of each map.
        summary_channels: Channels of the summary; None if there is none.

    Raises:
        ValueError: If a summary is wanted that does not exist.
    """

    def __init__(
        self, out_type: str, channels: tuple[int, ...], summary_channels: int | None
    ) -> None:
        super().__init__()
        check_choice('out_type', out_type, ('maps', 'summary'))
        # GroundingDINO's image backbone has maps only.
        if out_type == 'summary' and summary_channels is None:
            raise ValueError("the teacher has no summary; use out_type='maps', or another teacher.")
        self.out_type = out_type
        self.channels = channels
        self.summary_channels = summary_channels

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return features as OpenMMLab's necks and heads take them.

        Args:
            images: What the data preprocessor gives, (B, 3, H, W).

        Returns:
            The teacher's maps, from fine to coarse (B, C_i, H_i, W_i), or
            for ``out_type='summary'`` one tensor (B, D).
        """
        features = self.extract(images)
        if self.out_type == 'maps':
            return features.maps
        assert features.summary is not None
        return (features.summary,)

    @abstractmethod
    def extract(self, images: Tensor) -> Features:
        """Summary and maps of preprocessed images (B, 3, H, W)."""


@MODELS.register_module()
class ProjectedBackbone(TeacherSpaceEncoder):
    """A frozen student whose features are projected into a teacher's space.

    Inference of KPU (https://arxiv.org/abs/2508.14707): the s2t projectors
    predict the features of the teacher's own image encoder, which its
    decoder takes. Each map of the teacher comes from the student level of
    the closest stride, resized to ceil(H / stride) x ceil(W / stride).
    :meth:`forward` takes images as every OpenMMLab backbone does, normalised
    by the data preprocessor with ImageNet's mean and standard deviation
    (RGB); :meth:`encode` takes raw ones.

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
        student = open_student(source, config)
        link = student.link(teacher)
        super().__init__(out_type, link.channels, link.summary_channels)
        self.student = student.backbone
        self.link = link
        self.strides = link.levels.strides

    def extract(self, images: Tensor) -> Features:
        """Summary and maps of normalised images, in the teacher's space.

        Args:
            images: (B, 3, H, W), H and W from 32.
        """
        size = (images.shape[-2], images.shape[-1])
        return self.link.infer(self.student.extract(images), size)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Summary and maps of raw images, in the teacher's space.

        Args:
            images: RGB in [0, 255], (B, 3, H, W).
            mask: True where a pixel is real and not padding, (B, H, W)
                bool; None if all are. Defaults to None.

        Returns:
            Summary and maps; with masks of the maps if ``mask`` is given.
        """
        features = self.extract(self.student.normalise(images, mask))
        # The masks have to fit the teacher's maps, not the student's.
        return features._replace(masks=level_masks(features.maps, mask))


@MODELS.register_module()
class TeacherEncoder(TeacherSpaceEncoder):
    """A teacher's own image encoder, to compare the student with.

    In contrast to :class:`ProjectedBackbone` it takes raw images, which the
    teacher normalises: give the model a data preprocessor without mean and
    standard deviation.

    Args:
        teacher: Config of a teacher.
        out_type: What :meth:`forward` gives: 'maps' or 'summary'. Defaults
            to 'maps'.

    Raises:
        ValueError: If a summary is wanted that the teacher does not have.
    """

    def __init__(self, teacher: Mapping[str, Any], out_type: str = 'maps') -> None:
        # The bank refuses a config that is not a teacher's.
        encoder = TeacherBank(dict(teacher=teacher))['teacher']
        super().__init__(out_type, encoder.channels, encoder.summary_channels)
        self.teacher = encoder

    def extract(self, images: Tensor) -> Features:
        """Summary and maps of raw images (B, 3, H, W), RGB in [0, 255]."""
        return self.encode(images)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Summary and maps of raw images.

        Args:
            images: RGB in [0, 255], (B, 3, H, W).
            mask: True where a pixel is real and not padding, (B, H, W)
                bool; None if all are. Defaults to None.
        """
        return self.teacher.encode(images, mask)
