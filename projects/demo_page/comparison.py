"""The same inference by a student and by its original teachers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np

from .inferencer_pool import ENCODERS, InferencerPool

# One prompt instead of the 80 of the Inferencers, which are slow on a CPU.
TEMPLATES = ('a photo of a {}.',)
# The format is that of kpu_mm.apis.
Prediction = dict[str, Any]


class Answer(NamedTuple):
    """The prediction of an Inferencer for one image.

    Args:
        prediction: See :mod:`kpu_mm.apis`.
        picture: RGB uint8, (H, W, 3).
    """

    prediction: Prediction
    picture: np.ndarray


class Pair(NamedTuple):
    """Answers of both encoders.

    Args:
        student: The answer with the student as the teacher's image encoder.
        teacher: The answer of the original teacher.
    """

    student: Answer
    teacher: Answer


class Comparison:
    """Runs a student and its original teachers on the same image.

    Args:
        pool: The Inferencers.
    """

    def __init__(self, pool: InferencerPool) -> None:
        self.pool = pool

    def features(self, image: np.ndarray, teacher: str) -> Pair:
        """Draw the finest map in a teacher's space by its PCA.

        Equal features have equal colours in both pictures, because both use
        the principal components of the teacher's map.

        Args:
            image: BGR uint8, (H, W, 3).
            teacher: Name of the teacher.
        """
        draw = partial(self._draw, 'features', teacher, image, map_index=0)
        of_teacher = draw('teacher')
        # The teacher comes first, because its map gives the components.
        like = of_teacher.prediction['maps'][0]
        return Pair(draw('student', like=like), of_teacher)

    def classes(
        self, image: np.ndarray, teacher: str, names: Sequence[str]
    ) -> tuple[Prediction, Prediction]:
        """Classify an image, zero-shot; student first, then teacher.

        Args:
            image: BGR uint8, (H, W, 3).
            teacher: Name of a CLIP.
            names: The classes.

        Raises:
            ValueError: If there is no class, or a name is empty or too long.
        """
        student, original = self._classify('classes', teacher, image, names)
        return student, original

    def boxes(self, image: np.ndarray, teacher: str, text: str, threshold: float) -> Pair:
        """Detect the objects that a text names.

        Args:
            image: BGR uint8, (H, W, 3).
            teacher: Name of a GroundingDINO.
            text: The text prompt.
            threshold: Only boxes with a higher score are kept.

        Raises:
            ValueError: If the text names nothing or is too long.
        """
        draw = partial(self._draw, 'boxes', teacher, image)
        return Pair(*(draw(e, texts=text, threshold=threshold) for e in ENCODERS))

    def heat(self, image: np.ndarray, teacher: str, text: str) -> Pair:
        """Draw the similarity of a text with each pixel.

        Both pictures use one scale, from the lowest to the highest
        similarity in either.

        Args:
            image: BGR uint8, (H, W, 3).
            teacher: Name of a CLIP.
            text: The text prompt.

        Raises:
            ValueError: If the text names nothing or is too long.
        """
        predictions = self._classify('heat', teacher, image, [text], score_maps='cosine')
        # There is one class: (1, H, W) -> (H, W).
        heats = [prediction['scores'][0] for prediction in predictions]
        low = min(float(heat.min()) for heat in heats)
        high = max(float(heat.max()) for heat in heats)
        rgb = image[..., ::-1]  # BGR -> RGB
        pictures = (heat_overlay(rgb, heat, low, high) for heat in heats)
        return Pair(*map(Answer, predictions, pictures))

    def _classify(
        self, task: str, teacher: str, image: np.ndarray, names: Sequence[str], **options: Any
    ) -> list[Prediction]:
        options |= dict(classes=names, templates=TEMPLATES)
        return [self._infer(task, teacher, image, e, **options)['predictions'][0] for e in ENCODERS]

    def _draw(self, *args: Any, **options: Any) -> Answer:
        result = self._infer(*args, return_vis=True, **options)
        return Answer(result['predictions'][0], result['visualization'][0])

    def _infer(
        self, task: str, teacher: str, image: np.ndarray, encoder: str, **options: Any
    ) -> dict[str, Any]:
        return self.pool.get(task, teacher, encoder)(image, **options)


def heat_overlay(
    image: np.ndarray, heat: np.ndarray, low: float, high: float, opacity: float = 0.6
) -> np.ndarray:
    """Lay a heat map over an image, from blue to red.

    Args:
        image: RGB uint8, (H, W, 3).
        heat: (H, W).
        low: What is dark blue, and all below.
        high: What is dark red, and all above.
        opacity: Share of the colour in the picture, in [0, 1]. Defaults to
            0.6.

    Returns:
        RGB uint8, (H, W, 3).
    """
    span = high - low or 1.0  # of a heat map that is the same all over
    values = ((heat - low) / span).clip(0, 1)
    colours = mpl.colormaps['turbo'](values)[..., :3] * 255  # (H, W, 3)
    mixed = opacity * colours + (1 - opacity) * image
    return mixed.round().astype(np.uint8)
