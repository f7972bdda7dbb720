"""The functions behind the page's buttons: uploads and texts to HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from typing import Any

import mmcv
import numpy as np

from kpu_mm.apis.read_images import decode

from .comparison import Comparison, Pair
from .uploads import UploadFolder

# Characters of a text, which are counted before it is tokenised. It is enough
# for a hundred long class names.
MAX_CHARACTERS = 4000
# Every class name costs a forward pass of the text tower.
MAX_NAMES = 100
# Larger images are scaled down to the size that GroundingDINO uses.
MAX_SIDE = 1333

# Picture and HTML of the student, picture and HTML of the teacher.
PicturesWithText = tuple[np.ndarray, str, np.ndarray, str]


class Answers:
    """Turns what users upload and type into what the page shows.

    Every method returns the student's results first, then the teacher's.

    Args:
        comparison: Runs student and teachers.
        max_pixels: Larger images are refused.
        uploads: The folder of the uploaded images.
    """

    def __init__(self, comparison: Comparison, max_pixels: int, uploads: UploadFolder) -> None:
        self.comparison = comparison
        self.max_pixels = max_pixels
        self.uploads = uploads

    def features(self, path: str | None, teacher: str) -> tuple[np.ndarray, np.ndarray]:
        """Draw the features of student and teacher.

        Args:
            path: The uploaded file; None if there is none.
            teacher: Name of the teacher.

        Raises:
            ValueError: If there is no image, or it is refused.
        """
        pair = self.comparison.features(self._read(path), teacher)
        return pair.student.picture, pair.teacher.picture

    def classes(self, path: str | None, teacher: str, names: str) -> tuple[str, str]:
        """Classify the image and draw the scores as bars.

        Args:
            path: As in :meth:`features`.
            teacher: Name of a CLIP.
            names: Class names, separated by commas or line ends.

        Raises:
            ValueError: If the image or the names are refused.
        """
        check_length(names)
        student, original = self.comparison.classes(self._read(path), teacher, split_names(names))
        return class_bars(student), class_bars(original)

    def boxes(
        self, path: str | None, teacher: str, text: str, threshold: float
    ) -> PicturesWithText:
        """Detect the objects that a text names, with a table of the boxes.

        Args:
            path: As in :meth:`features`.
            teacher: Name of a GroundingDINO.
            text: The text prompt.
            threshold: Only boxes with a higher score are kept.

        Raises:
            ValueError: If the image or the text is refused.
        """
        check_length(text)
        pair = self.comparison.boxes(self._read(path), teacher, text, threshold)
        return _side_by_side(pair, partial(box_table, threshold=threshold))

    def heat(self, path: str | None, teacher: str, text: str) -> PicturesWithText:
        """Draw the similarity with a text as heat maps, with their ranges.

        Args:
            path: As in :meth:`features`.
            teacher: Name of a CLIP.
            text: The text prompt.

        Raises:
            ValueError: If the image or the text is refused.
        """
        check_length(text)
        pair = self.comparison.heat(self._read(path), teacher, text)
        return _side_by_side(pair, heat_range)

    def _read(self, path: str | None) -> np.ndarray:
        """The uploaded image, BGR, with sides of MAX_SIDE at most."""
        if path is None:
            raise ValueError('there is no image yet; upload one first.')
        file = self.uploads.find(path)
        image = decode(self.uploads.read(file), file.name, max_pixels=self.max_pixels)
        # (H, W, 3)
        longest = max(image.shape[:2])
        if longest <= MAX_SIDE:
            return image
        smaller: np.ndarray = mmcv.imrescale(image, MAX_SIDE / longest, interpolation='area')
        return smaller


def check_length(text: str) -> None:
    """Refuse a text with too many characters.

    Args:
        text: The text that the user typed.

    Raises:
        ValueError: If it has more than :data:`MAX_CHARACTERS`.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f'the text has {len(text)} characters; this page takes {MAX_CHARACTERS}.')


def split_names(text: str) -> list[str]:
    """Split a text at commas and line ends into names.

    Args:
        text: The text that the user typed.

    Raises:
        ValueError: If there are too many names.
    """
    parts = (part.strip() for part in re.split(r'[,\n]', text))
    names = [part for part in parts if part]
    if len(names) > MAX_NAMES:
        raise ValueError(
            f'there are {len(names)} classes; this page takes {MAX_NAMES}. '
            'For more use ZeroShotClassificationInferencer.'
        )
    return names


def _side_by_side(pair: Pair, describe: Callable[[dict[str, Any]], str]) -> PicturesWithText:
    student, teacher = pair
    return (
        student.picture,
        describe(student.prediction),
        teacher.picture,
        describe(teacher.prediction),
    )


def class_bars(prediction: Mapping[str, Any], topk: int = 10) -> str:
    """HTML list of classes with a bar for each score.

    Args:
        prediction: Result of a classification, best class first.
        topk: Number of classes to list. Defaults to 10.
    """
    rows = zip(prediction['names'], prediction['scores'], strict=True)
    cells = [
        # Names come from users, so they are escaped.
        f'<li><span>{escape(name)}</span><b>{score:.1%}</b><i style="width:{score:.1%}"></i></li>'
        for name, score in list(rows)[:topk]
    ]
    return f'<ol class="bars">{"".join(cells)}</ol>'


def box_table(prediction: Mapping[str, Any], threshold: float) -> str:
    """HTML table of boxes with corners in pixels.

    Args:
        prediction: Result of a detection, best box first.
        threshold: Score threshold of the detection.
    """
    columns = (prediction[key] for key in ('names', 'scores', 'bboxes'))
    rows = ''.join(
        f'<tr><td>{escape(name)}</td><td>{score:.3f}</td>'
        f'<td>{", ".join(f"{corner:.0f}" for corner in box)}</td></tr>'
        for name, score, box in zip(*columns, strict=True)
    )
    if not rows:
        return (
            f'<p class="nothing">No box scores more than {threshold:g}; '
            'lower the threshold, or write something else.</p>'
        )
    head = '<th>phrase</th><th>score</th><th>x1, y1, x2, y2</th>'
    return f'<table class="boxes"><tr>{head}</tr>{rows}</table>'


def heat_range(prediction: Mapping[str, Any]) -> str:
    """HTML paragraph with the lowest and highest similarity.

    Args:
        prediction: Result of a segmentation with cosines of one class.
    """
    heat = prediction['scores'][0]
    return f'<p>Similarity from {heat.min():.3f} to {heat.max():.3f}</p>'
