"""InferencerPool: the Inferencers of a student and its teachers."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kpu_mm.apis.base_inferencer import ImageInferencer
from kpu_mm.apis.classification_inferencer import (
    ZeroShotClassificationInferencer,
)
from kpu_mm.apis.detection_inferencer import ZeroShotDetectionInferencer
from kpu_mm.apis.feature_inferencer import FeatureInferencer
from kpu_mm.apis.segmentation_inferencer import ZeroShotSegmentationInferencer
from kpu_mm.models.student import read_teachers
from kpu_mm.models.teachers import (
    BaseTeacher,
    CLIPTeacher,
    GroundingDINOTeacher,
)
from kpu_mm.registry import find_model

from .weight_pool import WeightPool


class Task(NamedTuple):
    """What can be asked for.

    Args:
        inferencer: The class that answers.
        kind: The teachers that it works with.
    """

    inferencer: type[ImageInferencer]
    kind: type


TASKS = dict(
    features=Task(FeatureInferencer, BaseTeacher),
    classes=Task(ZeroShotClassificationInferencer, CLIPTeacher),
    boxes=Task(ZeroShotDetectionInferencer, GroundingDINOTeacher),
    heat=Task(ZeroShotSegmentationInferencer, CLIPTeacher),
)
ENCODERS = ('student', 'teacher')


class InferencerPool:
    """Each Inferencer once, and once what several of them have in common.

    Args:
        student: A folder that ``tools/export.py`` wrote, or a checkpoint of
            a distillation run.
        device: Where to compute; None takes a GPU if there is one. Defaults
            to None.
        teacher_cfgs: For teachers by name, arguments that differ from those
            of the run, such as ``dict(clip=dict(model=...))`` where they
            moved. Defaults to None.

    Attributes:
        teachers: For each task the names of the teachers it can be done
            with.

    Raises:
        FileNotFoundError: If the student is missing.
        ValueError: If there are arguments for a teacher that it does not
            have.
    """

    def __init__(
        self,
        student: str | Path,
        device: str | None = None,
        teacher_cfgs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.student = str(student)
        self.device = device
        self.teacher_cfgs = dict(teacher_cfgs or {})
        recorded = read_teachers(student)
        unknown = sorted(set(self.teacher_cfgs) - set(recorded))
        if unknown:
            raise ValueError(
                f"the student '{student}' has no teachers {unknown}; it has "
                f'{sorted(recorded)}.'
            )
        self.teachers = {
            task: [
                name
                for name, config in recorded.items()
                if find_model(config['type'], kind)
            ]
            for task, (_, kind) in TASKS.items()
        }
        self._weights = WeightPool()
        self._loaded: dict[tuple[str, str, str], ImageInferencer] = {}
        self._loading = threading.Lock()

    def load(self) -> None:
        """Load all there is now, and not when it is first asked for.

        Raises:
            FileNotFoundError: If something is missing.
            RuntimeError: If something is broken or does not fit.
        """
        for task, teachers in self.teachers.items():
            for teacher in teachers:
                for encoder in ENCODERS:
                    self.get(task, teacher, encoder)

    def get(self, task: str, teacher: str, encoder: str) -> ImageInferencer:
        """What answers for one side.

        Args:
            task: One of :data:`TASKS`.
            teacher: Name of the teacher.
            encoder: 'student' or 'teacher'.

        Raises:
            ValueError: If the task cannot be done with that teacher.
        """
        if teacher not in self.teachers[task]:
            raise ValueError(
                f'there is no teacher {teacher!r} for this; choose from '
                f'{self.teachers[task]}.'
            )
        key = (task, teacher, encoder)
        with self._loading:
            if key not in self._loaded:
                self._loaded[key] = self._build(*key)
                self._weights.share(self._loaded[key].model)
            return self._loaded[key]

    def _build(self, task: str, teacher: str, encoder: str) -> ImageInferencer:
        build: Any = TASKS[task].inferencer
        changes = self.teacher_cfgs.get(teacher)
        if task == 'features' and encoder == 'student':
            changes = None  # its teacher is not built
        inferencer: ImageInferencer = build(
            self.student,
            device=self.device,
            encoder=encoder,
            teacher=teacher,
            teacher_cfg=changes,
            show_progress=False,
        )
        return inferencer
