"""What an image encoder is worth in the places of the teachers' own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kpu_mm.models.teachers import CLIPTeacher
from kpu_mm.models.zero_shot import Boxes, GroundingDecoder, ProjectedBackbone
from kpu_mm.structures import Features

from .materials import DIGIT_WORDS
from .micro_scores import average_precision, look, zero_shot
from .scene_pool import Pool

# raw images (B, 3, H, W) to features in a teacher's space
Encode = Callable[[Tensor], Features]


class TeacherSides:
    """CLIP's text tower and GroundingDINO's decoder, and labelled scenes.

    Args:
        folder: Where the teachers are.
        pool: Scenes; all of them are asked about.

    Attributes:
        encoders: The teachers' own image encoders by name.
    """

    def __init__(self, folder: Path, pool: Pool) -> None:
        self._pool = pool
        self._clip = CLIPTeacher(
            f'local-dir:{folder / "clip"}', with_text=True
        )
        self._decoder = GroundingDecoder(
            dict(source=str(folder / 'grounding_dino'))
        )
        self.encoders: dict[str, Encode] = {
            'clip': self._clip,
            'grounding_dino': self._decoder.teacher,
        }

    def accuracy(self, encode: Encode) -> float:
        """Zero-shot top-1 accuracy for the dominant digit.

        Args:
            encode: In the place of CLIP's image tower.
        """
        clip = self._clip
        text_tower: Any = clip.model
        scores = zero_shot(
            look(encode),
            text_tower.encode_text,
            clip.tokenizer(),
            self._pool.batch(np.arange(len(self._pool.images))),
        )
        return scores['zero_shot_top1']

    def precision(self, encode: Encode) -> float:
        """Zero-shot AP for all digits.

        Args:
            encode: In the place of GroundingDINO's image backbone.
        """
        find = partial(self.find, encode)
        count = len(self._pool.images)
        return average_precision(find, self._pool, count)['AP']

    @torch.no_grad()
    def find(self, encode: Encode, images: Tensor) -> list[Boxes]:
        """Find the digits of scenes.

        Args:
            encode: In the place of GroundingDINO's image backbone.
            images: (B, H, W, 3) uint8.
        """
        maps = encode(images.permute(0, 3, 1, 2)).maps
        return self._decoder.detect(maps, DIGIT_WORDS)


def student_encoders(
    checkpoint: Path,
    config: Path,
    names: Iterable[str] = ('clip', 'grounding_dino'),
) -> dict[str, Encode]:
    """The student in the places of its teachers' image encoders.

    Args:
        checkpoint: Of a distillation run.
        config: Its config.
        names: Which teachers. Defaults to ('clip', 'grounding_dino').
    """
    return {
        name: ProjectedBackbone(checkpoint, name, config).encode
        for name in names
    }
