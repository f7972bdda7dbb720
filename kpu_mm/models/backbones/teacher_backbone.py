"""TeacherBackbone: a frozen teacher as a backbone of OpenMMLab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from ..layers.feature_pyramid import FeaturePyramid
from .base_backbone import BaseBackbone, check_choice


@MODELS.register_module()
class TeacherBackbone(BaseBackbone):
    """Any teacher, frozen, under a trainable feature pyramid.

    The pyramid is ViTDet's (https://arxiv.org/abs/2203.16527): each level is
    made from the teacher's map of the closest stride. With
    ``out_type='summary'`` nothing is trained; a teacher without a summary
    gives the mean of its coarsest map.

    It takes images like :class:`KPUBackbone`, normalised with ImageNet's mean
    and standard deviation, and undoes that: the teacher normalises, and
    resizes, raw RGB for itself. Its weights are never trained and absent from
    checkpoints and optimiser.

    Args:
        teacher: Config of a teacher.
        embed_dims: Channels of each level. Defaults to 256.
        out_indices: Which of strides 4, 8, 16 and 32 :meth:`forward` gives.
            Defaults to (0, 1, 2, 3).
        out_type: 'pyramid'; for classification heads 'summary'; 'features'
            for owners that call :meth:`extract`. Defaults to 'pyramid'.
        init_cfg: Initialises the pyramid, as in MMEngine. Defaults to None.

    Raises:
        ValueError: If an option has a value that is not listed, or the config
            is that of no teacher.
    """

    def __init__(
        self,
        teacher: Mapping[str, Any],
        embed_dims: int = 256,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        out_type: str = 'pyramid',
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        # Who takes another backbone need not load the teachers' libraries.
        from ..teachers import TeacherBank

        super().__init__(out_type, out_indices, init_cfg)
        check_choice('out_type', out_type, ('pyramid', 'summary', 'features'))
        self.bank = TeacherBank(dict(teacher=teacher))
        self.embed_dims = embed_dims
        if out_type == 'pyramid':
            self.levels = self.build_levels(out_indices)

    def build_levels(self, indices: Sequence[int]) -> FeaturePyramid:
        """A new pyramid over the teacher's maps.

        Args:
            indices: Which of strides 4, 8, 16 and 32 it has.
        """
        return FeaturePyramid(self.channels, self.strides, self.embed_dims, indices)

    @property
    def teacher(self) -> Any:
        """The teacher, which is no sub-module."""
        return self.bank['teacher']

    @property
    def strides(self) -> tuple[int, ...]:  # type: ignore[override]
        """Pixels of the image per cell of each of the teacher's maps."""
        return self.teacher.strides

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each of the teacher's maps."""
        return self.teacher.channels

    @property
    def summary_channels(self) -> int:
        """Channels of the teacher's summary, or of the mean of its map."""
        return self.teacher.summary_channels or self.channels[-1]

    def extract(self, images: Tensor) -> Features:
        """Summary and maps of normalised images (B, 3, H, W)."""
        # The teacher has a normalisation of its own.
        return self.encode(images * self.std + self.mean)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """The teacher's summary and maps of raw images.

        The summary of a teacher without one is the mean of its coarsest map.

        Args:
            images: RGB in [0, 255], uint8 or float, (B, 3, H, W).
            mask: True where a pixel is real and not padding, (B, H, W)
                bool; None if all are. Defaults to None.
        """
        features: Features = self.teacher.encode(images, mask)
        if features.summary is None:
            # (B, C, h, w) -> (B, C)
            mean = features.maps[-1].mean((-2, -1))
            features = features._replace(summary=mean)
        return features
