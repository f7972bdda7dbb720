"""ZeroShotInferencer: a student, or its teacher, and the teacher's text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from mmengine.config import Config

from kpu_mm.models.backbones.base_backbone import check_choice

from .base_inferencer import ImageInferencer
from .find_config import Model, is_student
from .zero_shot_config import Places, zero_shot_config


class ZeroShotInferencer(ImageInferencer):
    """What the zero-shot Inferencers share.

    Around an exported student or a checkpoint the teacher's text side is
    built from the config that its run recorded, and images are prepared as
    that teacher wants them. What is asked for may change with each call.

    Args:
        model: A folder that ``tools/export.py`` wrote, a checkpoint of a
            distillation run, or a config: its name, such as
            'zero_shot/coco/kpu-vitb', its path, or the config itself.
        weights: The student for a config that has one: a folder or a
            checkpoint. Defaults to None, the config's own.
        device: Where to compute; None takes a GPU if there is one. Defaults
            to None.
        encoder: 'student', or 'teacher' for the untouched teacher in the
            student's place. With 'student' a config keeps the encoder it
            has. Defaults to 'student'.
        teacher: Which of the student's teachers; None takes the only one of
            the kind. Defaults to None.
        teacher_cfg: Arguments of the teacher that differ from those of the
            run or config, such as ``dict(source='/data/grounding-dino')``
            where it moved. Defaults to None.
        show_progress: Show a progress bar. Defaults to True.

    Raises:
        FileNotFoundError: If something is missing.
        ValueError: If the student has no teacher of the kind, or arguments
            contradict.
    """

    places: ClassVar[Places]

    def __init__(
        self,
        model: Model,
        weights: str | None = None,
        device: str | None = None,
        encoder: str = 'student',
        teacher: str | None = None,
        teacher_cfg: Mapping[str, Any] | None = None,
        show_progress: bool = True,
    ) -> None:
        check_choice('encoder', encoder, ('student', 'teacher'))
        cfg = zero_shot_config(
            self.places, model, weights, teacher, teacher_cfg
        )
        if encoder == 'teacher':
            self.use_teacher(cfg)
        self._around_student = is_student(model)
        super().__init__(cfg, device, show_progress)

    @abstractmethod
    def use_teacher(self, cfg: Config) -> None:
        """Put the teacher's own encoder into a config.

        Args:
            cfg: The config, which is changed.
        """

    @abstractmethod
    def fit_teacher(self, cfg: Config) -> None:
        """Prepare images in the way of the teacher that was built.

        Args:
            cfg: The config, which is changed.
        """

    def _init_pipeline(self, cfg: Any) -> Callable[..., Any]:
        if self._around_student:
            self.fit_teacher(cfg)
        return super()._init_pipeline(cfg)


def clip_encoder(cfg: Config, clip: Any, out_type: str) -> None:
    """Put a CLIP itself where a student stands.

    Args:
        cfg: The config, which is changed.
        clip: Arguments of the CLIP.
        out_type: 'maps' or 'summary'.
    """
    # the teacher normalises for itself
    cfg.model.data_preprocessor.update(mean=None, std=None)
    cfg.model.backbone = dict(
        type='kpu_mm.TeacherEncoder',
        teacher=dict(type='kpu_mm.CLIPTeacher', **clip),
        out_type=out_type,
    )
