"""The Inferencers of a student and its teachers, which share weights."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kpu_mm.apis.base_inferencer import ImageInferencer
from kpu_mm.apis.classification_inferencer import ZeroShotClassificationInferencer
from kpu_mm.apis.detection_inferencer import ZeroShotDetectionInferencer
from kpu_mm.apis.feature_inferencer import FeatureInferencer
from kpu_mm.apis.find_config import Model, find_config, is_student
from kpu_mm.apis.segmentation_inferencer import ZeroShotSegmentationInferencer
from kpu_mm.models.student import read_teachers
from kpu_mm.models.teachers import BaseTeacher, CLIPTeacher, GroundingDINOTeacher
from kpu_mm.registry import find_model

# For each task its Inferencer and the class of teachers that it works with.
TASKS: dict[str, tuple[type[ImageInferencer], type]] = dict(
    features=(FeatureInferencer, BaseTeacher),
    classes=(ZeroShotClassificationInferencer, CLIPTeacher),
    boxes=(ZeroShotDetectionInferencer, GroundingDINOTeacher),
    heat=(ZeroShotSegmentationInferencer, CLIPTeacher),
)
ENCODERS = ('student', 'teacher')


class InferencerPool:
    """Builds each Inferencer once and keeps equal weights in memory once.

    Args:
        student: A folder that ``tools/export.py`` wrote, or a checkpoint of
            a distillation run.
        device: Device of the models; None takes a GPU if there is one.
            Defaults to None.
        teacher_cfgs: For teachers by name, arguments that differ from those
            of the run, such as ``dict(clip=dict(model=...))`` for a teacher
            that moved. Defaults to None.

    Attributes:
        teachers: For each task the names of the teachers that support it.

    Raises:
        FileNotFoundError: If the student is missing.
        ValueError: If the student has no such teacher as teacher_cfgs names.
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
                f"the student '{student}' has no teachers {unknown}; it has {sorted(recorded)}."
            )
        self.teachers = {
            task: [name for name, config in recorded.items() if find_model(config['type'], kind)]
            for task, (_, kind) in TASKS.items()
        }
        self._weights = WeightPool()
        self._loaded: dict[tuple[str, str, str], ImageInferencer] = {}
        self._loading = threading.Lock()

    def load(self) -> None:
        """Build all Inferencers now instead of at their first use.

        Raises:
            FileNotFoundError: If a file is missing.
            RuntimeError: If a file is broken or weights do not fit.
        """
        for task, teachers in self.teachers.items():
            for teacher in teachers:
                for encoder in ENCODERS:
                    self.get(task, teacher, encoder)

    def get(self, task: str, teacher: str, encoder: str) -> ImageInferencer:
        """Return an Inferencer, which is built at the first call.

        Args:
            task: One of :data:`TASKS`.
            teacher: Name of the teacher.
            encoder: 'student' or 'teacher'.

        Raises:
            ValueError: If that teacher does not support the task.
        """
        if teacher not in self.teachers[task]:
            raise ValueError(
                f'there is no teacher {teacher!r} for this; choose from {self.teachers[task]}.'
            )
        key = (task, teacher, encoder)
        # Gradio calls from several threads.
        with self._loading:
            if key not in self._loaded:
                self._loaded[key] = self._build(*key)
                self._weights.share(self._loaded[key].model)
            return self._loaded[key]

    def _build(self, task: str, teacher: str, encoder: str) -> ImageInferencer:
        build: Any = TASKS[task][0]
        changes = self.teacher_cfgs.get(teacher)
        if task == 'features' and encoder == 'student':
            changes = None  # this Inferencer does not build the teacher
        inferencer: ImageInferencer = build(
            self.student,
            device=self.device,
            encoder=encoder,
            teacher=teacher,
            teacher_cfg=changes,
            show_progress=False,
        )
        return inferencer


class WeightPool:
    """Makes equal weights of frozen models one tensor in memory.

    A student or teacher is loaded again for every task. Models that are
    trained must not share weights in this way.
    """

    def __init__(self) -> None:
        # Candidates have the same shape, type, device and sum.
        self._kept: dict[tuple[Any, ...], list[Tensor]] = {}

    def share(self, model: nn.Module) -> None:
        """Replace a model's weights by equal ones of earlier models.

        Args:
            model: The model, whose other weights join the pool.
        """
        # model.to(device) works in this way too, and thus reaches external
        # modules, which are not in state_dict().
        model._apply(self._find)

    def _find(self, weight: Tensor) -> Tensor:
        weight = weight.detach()
        if weight.nbytes < 1024:  # too small to be worth a comparison
            return weight
        key = weight.shape, weight.dtype, weight.device, float(weight.sum())
        same = self._kept.setdefault(key, [])
        for other in same:
            if torch.equal(weight, other):
                return other
        same.append(weight)
        return weight


def find_source(model: Model) -> str:
    """Return the student that a user's ``--model`` leads to.

    Args:
        model: A student, or a zero-shot config that names one: the config's
            name, its path, or the config itself.

    Returns:
        The exported folder or the checkpoint.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If the config names no student.
    """
    if is_student(model):
        return str(model)
    parts = find_config(model).get('model', {})
    for key in ('backbone', 'encoder'):
        source = (parts.get(key) or {}).get('source')
        if source is not None:
            return str(source)
    raise ValueError(
        f"the config '{model}' names no student; pass a folder that "
        'tools/export.py wrote, a checkpoint, or a config such as '
        "'zero_shot/coco/kpu-vitb'."
    )
