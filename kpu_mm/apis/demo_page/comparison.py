"""Comparison: a student's answers beside those of its teachers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kpu_mm.models.student import read_teachers
from kpu_mm.registry import MODELS

from ..base_inferencer import ImageInferencer
from ..classification_inferencer import ZeroShotClassificationInferencer
from ..detection_inferencer import ZeroShotDetectionInferencer
from ..feature_inferencer import FeatureInferencer
from ..segmentation_inferencer import ZeroShotSegmentationInferencer
from .share_weights import share_weights


class Answer(NamedTuple):
    """What an Inferencer gives for one image.

    Args:
        prediction: See :mod:`kpu_mm.apis`.
        picture: RGB uint8, (H, W, 3).
    """

    prediction: dict[str, Any]
    picture: np.ndarray


class Pair(NamedTuple):
    """Answers to one question.

    Args:
        student: With the student's features in the teacher's place.
        teacher: Of the untouched teacher.
    """

    student: Answer
    teacher: Answer


class Task(NamedTuple):
    """What can be asked for.

    Args:
        inferencer: The class that answers.
        kind: Class of the teachers that it works with.
    """

    inferencer: type[ImageInferencer]
    kind: str


TASKS = dict(
    features=Task(FeatureInferencer, 'BaseTeacher'),
    classes=Task(ZeroShotClassificationInferencer, 'CLIPTeacher'),
    boxes=Task(ZeroShotDetectionInferencer, 'GroundingDINOTeacher'),
    heat=Task(ZeroShotSegmentationInferencer, 'CLIPTeacher'),
)


class Comparison:
    """A student's answers beside those of its untouched teachers.

    Models are loaded when they are first asked for, and hold equal weights
    in common.

    Args:
        student: A folder that ``tools/export.py`` wrote, or a checkpoint of
            a distillation run.
        device: Where to compute; None takes a GPU if there is one. Defaults
            to None.
        teacher_cfgs: For teachers by name, arguments that differ from those
            of the run, such as ``dict(clip=dict(model=...))`` where they
            moved. Defaults to None.

    Raises:
        FileNotFoundError: If the student is missing.
        ValueError: If changes are for a teacher that it does not have.
    """
