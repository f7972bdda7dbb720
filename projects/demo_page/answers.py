"""The functions behind the page's buttons."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import mmcv
import numpy as np

from kpu_mm.apis.decode_image import decode

from .comparison import Comparison, Pair
from .tables import box_table, class_bars, heat_range
from .uploads import UploadFolder

# of a text, looked at before it is tokenised: a hundred long class names
MAX_CHARACTERS = 4000
# each costs a run of the text tower
MAX_NAMES = 100
# larger images are scaled down to what a GroundingDINO looks at
MAX_SIDE = 1333

Pictures = tuple[np.ndarray, np.ndarray]
Shown = tuple[np.ndarray, str, np.ndarray, str]


class Answers:
    """From what users upload and type to what the page shows.

    Args:
        comparison: What answers.
        max_pixels: Larger images are refused.
        uploads: Where images are read from.
    """

    def __init__(
        self, comparison: Comparison, max_pixels: int, uploads: UploadFolder
    ) -> None:
        self.comparison = comparison
        self.max_pixels = max_pixels
        self.uploads = uploads

    def features(self, path: str | None, teacher: str) -> Pictures:
        """Pictures of features, the student's and the teacher's.

        Args:
            path: The uploaded file; None if there is none.
            teacher: Name of the teacher.

        Raises:
            ValueError: If there is no image, or it cannot be taken.
        """
        pair = self.comparison.features(self._read(path), teacher)
        return pair.student.picture, pair.teacher.picture

    def classes(
        self, path: str | None, teacher: str, names: str
    ) -> tuple[str, str]:
        """Bars of classes, the student's and the teacher's.

        Args:
            path: As in :meth:`features`.
            teacher: Name of a CLIP.
            names: Names between commas, or one a line.

        Raises:
            ValueError: If the image or the names cannot be taken.
        """
        check_length(names)
        image = self._read(path)
        student, untouched = self.comparison.classes(
            image, teacher, split_names(names)
        )
        return class_bars(student), class_bars(untouched)

    def boxes(
        self, path: str | None, teacher: str, text: str, threshold: float
    ) -> Shown:
        """Pictures and tables of boxes, the student's and the teacher's.

        Args:
            path: As in :meth:`features`.
            teacher: Name of a GroundingDINO.
            text: What to look for.
            threshold: Boxes are kept that score more.

        Raises:
            ValueError: If the image or the text cannot be taken.
        """
        check_length(text)
        image = self._read(path)
        pair = self.comparison.boxes(image, teacher, text, threshold)
        return _side_by_side(pair, partial(box_table, threshold=threshold))

    def heat(self, path: str | None, teacher: str, text: str) -> Shown:
        """Heat maps and their ranges, the student's and the teacher's.

        Args:
            path: As in :meth:`features`.
            teacher: Name of a CLIP.
            text: What to look for.

        Raises:
            ValueError: If the image or the text cannot be taken.
        """
        check_length(text)
        pair = self.comparison.heat(self._read(path), teacher, text)
        return _side_by_side(pair, heat_range)

    def _read(self, path: str | None) -> np.ndarray:
        """The uploaded image, BGR, no larger than what is worked with."""
        if path is None:
            raise ValueError('there is no image yet; upload one first.')
        file = self.uploads.find(path)
        image = decode(
            self.uploads.read(file), file.name, max_pixels=self.max_pixels
        )
        longest = max(image.shape[:2])
        if longest <= MAX_SIDE:
            return image
        smaller: np.ndarray = mmcv.imrescale(
            image, MAX_SIDE / longest, interpolation='area'
        )
        return smaller


def check_length(text: str) -> None:
    """Refuse a text of too many characters.

    Args:
        text: What was typed.

    Raises:
        ValueError: If it has more than :data:`MAX_CHARACTERS`.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f'the text has {len(text)} characters; this page takes '
            f'{MAX_CHARACTERS}.'
        )


def split_names(text: str) -> list[str]:
    """Names between commas or line ends.

    Args:
        text: What was typed.

    Raises:
        ValueError: If there are too many.
    """
    parts = (part.strip() for part in re.split(r'[,\n]', text))
    names = [part for part in parts if part]
    if len(names) > MAX_NAMES:
        raise ValueError(
            f'there are {len(names)} classes; this page takes {MAX_NAMES}. '
            'For more use ZeroShotClassificationInferencer.'
        )
    return names


def _side_by_side(pair: Pair, tell: Callable[[dict[str, Any]], str]) -> Shown:
    student, teacher = pair
    return (
        student.picture,
        tell(student.prediction),
        teacher.picture,
        tell(teacher.prediction),
    )
