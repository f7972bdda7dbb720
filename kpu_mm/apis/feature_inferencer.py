"""FeatureInferencer: summary, maps and a picture of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from kpu_mm.models.backbones import KPUBackbone
from kpu_mm.models.backbones.base_backbone import check_choice
from kpu_mm.models.student import Student
from kpu_mm.models.teacher_link import TeacherLink
from kpu_mm.models.teachers import TeacherBank
from kpu_mm.structures import Features
from kpu_mm.visualization import pca_rgb

from .base_inferencer import ImageInferencer
from .find_config import Model
from .find_student import find_student


class FeatureInferencer(ImageInferencer):
    """Features of a student, in its own space or a teacher's, or a teacher's.

    The picture shows the three main directions of one map as colours. A call
    takes, besides the arguments of :class:`ImageInferencer`:

    * ``map_index``: which map to draw; None for the one whose stride is
      closest to 16;
    * ``like``: a map of another prediction, (C, h, w), in whose colours to
      draw, so that equal features of student and teacher look alike.

    Args:
        model: A folder that ``tools/export.py`` wrote, a checkpoint of a
            distillation run, or a config of a model with a student: its
            name, its path, or the config itself.
        weights: The checkpoint for a config. Defaults to None: a zero-shot
            config names its student.
        device: Where to compute; None takes a GPU if there is one. Defaults
            to None.
        encoder: 'student', or 'teacher' for the untouched teacher. Defaults
            to 'student'.
        teacher: Name of a teacher: with the student as encoder, its
            features are projected into that teacher's space. Defaults to
            None, the student's own space, or the only teacher.
        teacher_cfg: Arguments of the teacher itself that differ from those
            of the run, such as where it is. Defaults to None.
        image_size: Longer side of what the model sees; None leaves images
            as they are. Defaults to 518.
        show_progress: Show a progress bar. Defaults to True.

    Raises:
        FileNotFoundError: If something is missing.
        ValueError: If there is no such teacher, or arguments contradict.
    """

    visualize_kwargs: ClassVar[set[str]] = {'map_index', 'like'}

    def __init__(
        self,
        model: Model,
        weights: str | None = None,
        device: str | None = None,
        encoder: str = 'student',
        teacher: str | None = None,
        teacher_cfg: Mapping[str, Any] | None = None,
        image_size: int | None = 518,
        show_progress: bool = True,
    ) -> None:
        check_choice('encoder', encoder, ('student', 'teacher'))
        student = find_student(model, weights)
        self.image_size = image_size
        self._encoder: Any
        if encoder == 'teacher':
            self._encoder = _build_teacher(student, teacher, teacher_cfg)
        elif teacher_cfg is not None:
            raise ValueError(
                "teacher_cfg is for encoder='teacher'; remove one of them."
            )
        else:
            link = None if teacher is None else student.link(teacher)
            self._encoder = _Projected(student.backbone, link)
        super().__init__(Config(dict()), device, show_progress)

    def forward(self, inputs: Tensor) -> list[Features]:
        """Features of a batch.

        Args:
            inputs: RGB, (B, 3, H, W) uint8.

        Returns:
            For each image summary (D,) and maps (C, h, w).
        """
        device = self.model.mean.device
        summary, maps, _ = self.model(inputs.to(device))
        return [
            Features(
                None if summary is None else summary[i],
                tuple(m[i] for m in maps),
            )
            for i in range(len(inputs))
        ]

    def describe(self, found: Features) -> dict[str, Any]:
        """Summary and maps as arrays.

        Args:
            found: Those of one image.
        """
        summary, maps, _ = found
        return dict(
            summary=None if summary is None else summary.cpu().numpy(),
            maps=[m.cpu().numpy() for m in maps],
        )

    def draw(
        self,
        rgb: np.ndarray,
        found: Features,
        map_index: int | None = None,
        like: np.ndarray | None = None,
    ) -> np.ndarray:
        """The three main directions of a map as colours.

        Args:
            rgb: The image, (H, W, 3) uint8.
            found: Its features.
            map_index: Which map. Defaults to None, that of stride 16.
            like: The map whose colours to take. Defaults to None, itself.

        Returns:
            RGB of the image's size.

        Raises:
            ValueError: If there is no such map, or it has other channels.
        """
        if map_index is None:
            map_index = _closest_to_16(self.model.strides)
        if not -len(found.maps) <= map_index < len(found.maps):
            raise ValueError(
                f'map_index={map_index}: there are {len(found.maps)} maps.'
            )
        m = found.maps[map_index]
        if like is not None and (like.ndim != 3 or len(like) != len(m)):
            raise ValueError(
                f'like is {like.shape}; pass a map of {len(m)} channels.'
            )
        basis = None if like is None else torch.from_numpy(like).to(m)
        colours = pca_rgb(m, basis).permute(1, 2, 0).cpu().numpy()
        picture: np.ndarray = mmcv.imresize(
            (colours * 255).round().astype(np.uint8),
            (rgb.shape[1], rgb.shape[0]),
        )
        return picture

    def _init_model(
        self, cfg: Any, weights: str | None, device: str = 'cpu'
    ) -> nn.Module:
        model: nn.Module = self._encoder.to(device).eval()
        return model

    def _init_collate(self, cfg: Any) -> Callable[..., Any]:
        return lambda batch: torch.stack([data['inputs'] for data in batch])

    def _init_pipeline(self, cfg: Any) -> Callable[..., Any]:
        return self._prepare

    def _prepare(self, data: dict[str, Any]) -> dict[str, Any]:
        bgr = data['img']
        if self.image_size is not None:
            height, width = bgr.shape[:2]
            scale = self.image_size / max(height, width)
            size = (round(width * scale), round(height * scale))
            bgr = mmcv.imresize(
                bgr, size, interpolation='bicubic', backend='pillow'
            )
        rgb = np.ascontiguousarray(bgr[..., ::-1].transpose(2, 0, 1))
        return dict(inputs=torch.from_numpy(rgb))


class _Projected(nn.Module):
    """Raw images to features of a student, projected or not.

    Args:
        backbone: The student.
        link: The link into a teacher's space; None for the student's own.
    """

    def __init__(self, backbone: KPUBackbone, link: TeacherLink | None):
        super().__init__()
        self.backbone = backbone
        self.link = link
        self.mean = backbone.mean
        self.strides = (
            backbone.strides if link is None else link.levels.strides
        )

    def forward(self, images: Tensor) -> Features:
        size = (images.shape[-2], images.shape[-1])
        features = self.backbone.encode(images)
        return (
            features if self.link is None else self.link.infer(features, size)
        )


def _build_teacher(
    student: Student, name: str | None, changes: Mapping[str, Any] | None
) -> nn.Module:
    teachers = student.teachers
    if name is None and len(teachers) == 1:
        (name,) = teachers
    if name not in teachers:
        raise ValueError(
            f'the student has the teachers {sorted(teachers)}; name one of '
            'them with teacher=...'
        )
    bank = TeacherBank({name: {**teachers[name], **(changes or {})}})
    return bank[name]


def _closest_to_16(strides: tuple[int, ...]) -> int:
    distances = [abs(math.log2(stride / 16)) for stride in strides]
    return distances.index(min(distances))
