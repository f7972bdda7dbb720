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

from kpu_mm.models.backbones.base_backbone import check_choice
from kpu_mm.models.student import Student
from kpu_mm.models.teachers.base_teacher import BaseTeacher, build_teacher
from kpu_mm.structures import Features
from kpu_mm.visualization import pca_rgb

from .base_inferencer import ImageInferencer
from .find_config import Model, choose_teacher, find_student


class FeatureInferencer(ImageInferencer):
    """Features of a student, in its own space or a teacher's, or a teacher's.

    The picture shows the three principal components of one map as colours. A
    call takes, besides the arguments of :class:`ImageInferencer`:

    * ``map_index``: which map to draw; None for the one whose stride is
      closest to 16;
    * ``like``: a map of another prediction, (C, h, w), whose components and
      colours to take, so that equal features of student and teacher have
      equal colours.

    Args:
        model: A folder that ``tools/export.py`` wrote, a checkpoint of a
            distillation run, or a config of a model with a student: its
            name, its path, or the config itself.
        weights: The checkpoint for a config. Defaults to None: a zero-shot
            config names its student.
        device: Where to compute; None takes a GPU if there is one. Defaults
            to None.
        encoder: 'student', or 'teacher' for the teacher's own features.
            Defaults to 'student'.
        teacher: Name of a teacher: with the student as encoder, its
            features are projected into that teacher's space. Defaults to
            None, the student's own space, or the only teacher.
        teacher_cfg: Arguments of the teacher itself that differ from those
            of the run, such as where it is. Defaults to None.
        image_size: Longer side of the model's input; None leaves images as
            they are. Defaults to 518.
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
        self._encoder: nn.Module
        if encoder == 'teacher':
            name = choose_teacher(student.teachers, BaseTeacher, teacher)
            changes = teacher_cfg or {}
            self._encoder = build_teacher(name, {**student.teachers[name], **changes})
        elif teacher_cfg is not None:
            raise ValueError("teacher_cfg is for encoder='teacher'; remove one of them.")
        elif teacher is None:
            self._encoder = student.backbone
        else:
            self._encoder = _Projected(student, teacher)
        # Model and pipeline do not come from a config here.
        super().__init__(Config(dict()), device, show_progress)

    def forward(self, inputs: Tensor) -> list[Features]:
        """Compute the features of a batch.

        Args:
            inputs: RGB, (B, 3, H, W) uint8.

        Returns:
            For each image summary (D,) and maps (C, h, w).
        """
        device = next(self.model.parameters()).device
        summary, maps, _ = self.model.encode(inputs.to(device))
        return [
            Features(None if summary is None else summary[i], tuple(m[i] for m in maps))
            for i in range(len(inputs))
        ]

    def postprocess(self, result: Features) -> dict[str, Any]:
        """Return summary and maps as arrays.

        Args:
            result: Those of one image.
        """
        summary, maps, _ = result
        return dict(
            summary=None if summary is None else summary.cpu().numpy(),
            maps=[m.cpu().numpy() for m in maps],
        )

    def visualize(
        self,
        rgb: np.ndarray,
        result: Features,
        map_index: int | None = None,
        like: np.ndarray | None = None,
    ) -> np.ndarray:
        """Draw the three principal components of a map as colours.

        Args:
            rgb: The image, (H, W, 3) uint8.
            result: Its features.
            map_index: Which map. Defaults to None, that of stride 16.
            like: The map whose colours to take. Defaults to None, itself.

        Returns:
            RGB of the image's size.

        Raises:
            ValueError: If there is no such map, or it has other channels.
        """
        if map_index is None:
            # In logarithms, 8 is as close to 16 as 32 is.
            distances = [abs(math.log2(s / 16)) for s in self.model.strides]
            map_index = distances.index(min(distances))
        count = len(result.maps)
        if not -count <= map_index < count:
            raise ValueError(f'map_index={map_index}: there are {count} maps.')
        m = result.maps[map_index]
        if like is not None and (like.ndim != 3 or len(like) != len(m)):
            raise ValueError(f'like is {like.shape}; pass a map of {len(m)} channels.')
        basis = None if like is None else torch.from_numpy(like).to(m)
        # (3, h, w) -> (h, w, 3)
        colours = pca_rgb(m, basis).permute(1, 2, 0).cpu().numpy()
        picture: np.ndarray = mmcv.imresize(
            (colours * 255).round().astype(np.uint8), (rgb.shape[1], rgb.shape[0])
        )
        return picture

    def _init_model(self, cfg: Any, weights: str | None, device: str = 'cpu') -> nn.Module:
        return self._encoder.to(device).eval()

    def _init_collate(self, cfg: Any) -> Callable[..., Any]:
        return lambda batch: torch.stack([data['inputs'] for data in batch])

    def _init_pipeline(self, cfg: Any) -> Callable[..., Any]:
        return self._prepare

    def _prepare(self, data: dict[str, Any]) -> dict[str, Any]:
        bgr = data['img']
        if self.image_size is not None:
            height, width = bgr.shape[:2]
            scale = self.image_size / max(height, width)
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            # As DINO's own evaluation resizes images.
            bgr = mmcv.imresize(bgr, size, interpolation='bicubic', backend='pillow')
        # (H, W, 3) -> (3, H, W), BGR -> RGB
        rgb = np.ascontiguousarray(bgr[..., ::-1].transpose(2, 0, 1))
        return dict(inputs=torch.from_numpy(rgb))


class _Projected(nn.Module):
    """A student as an encoder in a teacher's space.

    Args:
        student: The student.
        teacher: Name of the teacher.
    """

    def __init__(self, student: Student, teacher: str) -> None:
        super().__init__()
        self.backbone = student.backbone
        self.link = student.link(teacher)
        self.strides = self.link.levels.strides

    def encode(self, images: Tensor) -> Features:
        """Features of raw images (B, 3, H, W), RGB in [0, 255]."""
        size = (images.shape[-2], images.shape[-1])
        return self.link.infer(self.backbone.encode(images), size)
