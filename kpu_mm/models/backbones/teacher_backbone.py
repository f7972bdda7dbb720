"""TeacherBackbone: a teacher, frozen or not, as a backbone of OpenMMLab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from ..layers.feature_pyramid import FeaturePyramid
from .base_backbone import BaseBackbone, check_choice


@MODELS.register_module()
class TeacherBackbone(BaseBackbone):
    """Any teacher, frozen or not, under a trainable feature pyramid.

    The pyramid is ViTDet's (https://arxiv.org/abs/2203.16527): each level is
    made from the teacher's map of the closest stride. With
    ``out_type='summary'`` there is none; a teacher without a summary gives
    the mean of its coarsest map.

    It takes images like :class:`KPUBackbone`, normalised with ImageNet's mean
    and standard deviation, and undoes that: the teacher normalises, and
    resizes, raw RGB for itself. A frozen teacher's weights are absent from
    checkpoints and optimiser. Those of another learn, as far as the outputs
    depend on them, and are in both; it stays in eval mode, without dropout
    and with the statistics of its BatchNorms.

    Args:
        teacher: Config of a teacher.
        embed_dims: Channels of each level. Defaults to 256.
        out_indices: Which of strides 4, 8, 16 and 32 :meth:`forward` gives.
            Defaults to (0, 1, 2, 3).
        out_type: 'pyramid'; for classification heads 'summary'; 'features'
            for models that call :meth:`extract`. Defaults to 'pyramid'.
        frozen: Whether the teacher is; else it learns. Defaults to True.
        init_cfg: Initialises the pyramid, as in MMEngine. Defaults to None.

    Raises:
        ValueError: If an option has a value that is not listed, or the config
            is that of no teacher, or of one that cannot learn and is not frozen.
    """

    def __init__(
        self,
        teacher: Mapping[str, Any],
        embed_dims: int = 256,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        out_type: str = 'pyramid',
        frozen: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        # Who takes another backbone need not load the teachers' libraries.
        from ..teachers.base_teacher import TeacherBank, build_teacher

        super().__init__(out_type, out_indices, init_cfg)
        check_choice('out_type', out_type, ('pyramid', 'summary', 'features'))
        if frozen:
            self.bank = TeacherBank(dict(teacher=teacher))
        else:
            self.tuned = build_teacher('teacher', teacher)
        self.embed_dims = embed_dims
        if out_type == 'pyramid':
            self.levels = self.build_levels(out_indices)
        if not frozen:
            self._let_learn()

    def _let_learn(self) -> None:
        """Train the weights of the teacher that the outputs depend on."""
        self.tuned.learns = True
        # One by one: as a module, a teacher refuses it.
        weights = [p.requires_grad_() for p in self.tuned.parameters()]
        with torch.enable_grad():
            outputs = self(self.mean.new_zeros(1, 3, 128, 128))
        if isinstance(outputs, Features):
            outputs = (outputs.summary, *outputs.maps)
        total = sum(output.sum() for output in outputs)
        # DDP would wait for the gradients of the others, such as text encoders.
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.requires_grad_(gradient is not None)
        if not any(weight.requires_grad for weight in weights):
            raise ValueError(f'{type(self.tuned).__name__} gives no gradients; set frozen=True.')

    def build_levels(self, indices: Sequence[int]) -> FeaturePyramid:
        """A new pyramid over the teacher's maps.

        Args:
            indices: Which of strides 4, 8, 16 and 32 it has.
        """
        return FeaturePyramid(self.channels, self.strides, self.embed_dims, indices)

    @property
    def teacher(self) -> Any:
        """The teacher, which is no sub-module if it is frozen."""
        return self.tuned if 'tuned' in self._modules else self.bank['teacher']

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
