"""Comparison: a student's answers beside those of its teachers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from kpu_mm.visualization import heat_overlay

from .inferencer_pool import ENCODERS, InferencerPool

# the 80 that are the Inferencers' default take a CPU long
TEMPLATES = ('a photo of a {}.',)


Prediction = dict[str, Any]  # see kpu_mm.apis


class Answer(NamedTuple):
    """What an Inferencer gives for one image, drawn.

    Args:
        prediction: See :mod:`kpu_mm.apis`.
        picture: RGB uint8, (H, W, 3).
    """

    prediction: Prediction
    picture: np.ndarray


class Pair(NamedTuple):
    """Answers to one question.

    Args:
        student: With the student's features in the teacher's place.
        teacher: Of the untouched teacher.
    """

    student: Answer
    teacher: Answer


class Comparison:
    """A student's answers beside those of its untouched teachers.

    Args:
        pool: What answers.
    """

    def __init__(self, pool: InferencerPool) -> None:
        self.pool = pool

    def features(self, image: np.ndarray, teacher: str) -> Pair:
        """The finest map in a teacher's space, as colours of its PCA.

        Equal features have equal colours in both pictures: the directions
        are those of the teacher's map.

        Args:
            image: BGR uint8, (H, W, 3).
            teacher: Name of the teacher.
        """
        ask = partial(self._draw, 'features', teacher, image, map_index=0)
        of_teacher = ask('teacher')
        like = of_teacher.prediction['maps'][0]
        return Pair(ask('student', like=like), of_teacher)

    def classes(
        self, image: np.ndarray, teacher: str, names: Sequence[str]
    ) -> tuple[Prediction, Prediction]:
        """How well classes fit an image, for student and teacher.

        Args:
            image: BGR uint8, (H, W, 3).
            teacher: Name of a CLIP.
            names: The classes to choose from.

        Raises:
            ValueError: If there is no class, a name that says nothing, or
                one that is too long.
        """
        ask = partial(self._ask, 'classes', teacher, image)
        student, untouched = (
            ask(encoder, classes=names, templates=TEMPLATES)
            for encoder in ENCODERS
        )
        return student['predictions'][0], untouched['predictions'][0]

    def boxes(
        self, image: np.ndarray, teacher: str, text: str, threshold: float
    ) -> Pair:
        """Boxes of what a text speaks of.

        Args:
            image: BGR uint8, (H, W, 3).
            teacher: Name of a GroundingDINO.
            text: The text.
            threshold: Boxes are kept that score more.

        Raises:
            ValueError: If the text says nothing, or is too long.
        """
        ask = partial(self._draw, 'boxes', teacher, image)
        return Pair(
            *(ask(e, texts=text, threshold=threshold) for e in ENCODERS)
        )

    def heat(self, image: np.ndarray, teacher: str, text: str) -> Pair:
        """How well a text fits each pixel.

        Both pictures have one scale, from the lowest to the highest
        similarity in any of them.

        Args:
            image: BGR uint8, (H, W, 3).
            teacher: Name of a CLIP.
            text: The text.

        Raises:
            ValueError: If the text says nothing, or is too long.
        """
        ask = partial(self._ask, 'heat', teacher, image, score_maps='cosine')
        predictions = [
            ask(encoder, classes=[text], templates=TEMPLATES)['predictions'][0]
            for encoder in ENCODERS
        ]
        heats = [prediction['scores'][0] for prediction in predictions]
        low = min(float(heat.min()) for heat in heats)
        high = max(float(heat.max()) for heat in heats)
        rgb = image[..., ::-1]
        pictures = (heat_overlay(rgb, heat, low, high) for heat in heats)
        return Pair(*map(Answer, predictions, pictures))

    def _draw(self, *args: Any, **question: Any) -> Answer:
        result = self._ask(*args, return_vis=True, **question)
        return Answer(result['predictions'][0], result['visualization'][0])

    def _ask(
        self,
        task: str,
        teacher: str,
        image: np.ndarray,
        encoder: str,
        **question: Any,
    ) -> dict[str, Any]:
        return self.pool.get(task, teacher, encoder)(image, **question)
