"""A teacher that sees each image of a padded batch without its padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features, pad_features

from .base_teacher import BaseTeacher
from .teacher_bank import build_teacher


@MODELS.register_module()
class UnpaddedTeacher(BaseTeacher):
    """Another teacher, without the padding of batches of unequal images.

    A window or token beside the padding attends to it, so that what a model
    says of an image depends on the other images of its batch. Here it does
    not: each image is seen by itself, those of one size together, and the
    maps are padded instead. It says what a feature cache would hold.

    Args:
        teacher: Config of the teacher.

    Raises:
        ValueError: For padded images and a teacher that takes one size only,
            or if the config is that of no teacher.
    """

    def __init__(self, teacher: dict[str, Any]) -> None:
        built = build_teacher('unpadded', teacher)
        super().__init__(
            built.mean.flatten().tolist(),
            built.std.flatten().tolist(),
            built.resolution,
            built.size_divisor,
        )
        self.teacher = built
        self.summary_channels = built.summary_channels
        self.channels = built.channels
        self.strides = built.strides
        self.unread = built.unread

    @torch.no_grad()
    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """What the teacher says of each image alone.

        Args:
            images: Raw RGB in [0, 255], uint8 or float, (B, 3, H, W).
            mask: True where a pixel is real, (B, H, W) bool, one rectangle
                from the top left of each image; None if all are. Defaults to
                None.
        """
        if mask is None:
            features: Features = self.teacher(images)
            return features
        check_padding(self.resolution)
        heights, widths = mask[:, :, 0].sum(1), mask[:, 0].sum(1)
        alone = [
            image[:, :height, :width]
            for image, height, width in zip(
                images, heights.tolist(), widths.tolist(), strict=True
            )
        ]
        return pad_features(each_alone(self.teacher, alone), masked=True)


def each_alone(
    teacher: BaseTeacher, images: Sequence[Tensor]
) -> list[Features]:
    """What a teacher says of images of several sizes.

    Args:
        teacher: The teacher.
        images: Each (3, h, w).

    Returns:
        For each image, a batch of one.
    """
    by_size: dict[torch.Size, list[int]] = {}
    for i, image in enumerate(images):
        by_size.setdefault(image.shape, []).append(i)
    found: dict[int, Features] = {}
    for indices in by_size.values():
        batch = teacher(torch.stack([images[i] for i in indices]))
        for row, i in enumerate(indices):
            found[i] = Features(
                None
                if batch.summary is None
                else batch.summary[row : row + 1],
                tuple(m[row : row + 1] for m in batch.maps),
            )
    return [found[i] for i in range(len(images))]


def check_padding(resolution: tuple[int, int] | None) -> None:
    """Refuse maps that padded images have no place in.

    Args:
        resolution: The only size that the teacher takes, if there is one.

    Raises:
        ValueError: If there is one: each image is stretched to it, whatever
            its size.
    """
    if resolution is not None:
        raise ValueError(
            'the images of a batch have several sizes, which this teacher '
            f'stretches to {resolution} each, so that its maps do not lie on '
            'the padded images; let the pipeline of the stream give images of '
            'one size, as kpu_mm.DecodeRandomResizedCrop does.'
        )
