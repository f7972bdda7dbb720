"""TeacherEncoder: a teacher itself where the student may stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from ..frozen import ExternalModule
from ..teachers import TeacherBank


@MODELS.register_module()
class TeacherEncoder(ExternalModule):
    """A teacher's own image encoder, to compare the student with.

    In contrast to :class:`ProjectedBackbone` it takes raw images, which the
    teacher normalises for itself: give the model a data preprocessor without
    mean and standard deviation.

    Args:
        teacher: Config of a teacher.
        out_type: What :meth:`forward` gives: 'maps' or 'summary'. Defaults
            to 'maps'.

    Raises:
        ValueError: If the teacher has no summary, but that is wanted.
    """

    def __init__(
        self, teacher: Mapping[str, Any], out_type: str = 'maps'
    ) -> None:
        super().__init__()
        self.teacher = TeacherBank(dict(teacher=teacher))['teacher']
        check_out_type(out_type, self.teacher.summary_channels)
        self.out_type = out_type

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map."""
        return self.teacher.channels

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features as OpenMMLab's necks and heads take them.

        Args:
            images: Raw RGB in [0, 255], (B, 3, H, W).

        Returns:
            The teacher's maps, (B, C_i, H_i, W_i), or for
            ``out_type='summary'`` one tensor (B, D).
        """
        return select(self.encode(images), self.out_type)

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """What the teacher says of raw images.

        Args:
            images: RGB in [0, 255], (B, 3, H, W).
            mask: True where a pixel is real and not padding, (B, H, W)
                bool; None if all are. Defaults to None.
        """
        return self.teacher.encode(images, mask)


def check_out_type(out_type: str, summary_channels: int | None) -> None:
    """Raise unless an encoder can give what is asked for.

    Args:
        out_type: 'maps' or 'summary'.
        summary_channels: Channels of its summary; None if it has none.

    Raises:
        ValueError: If it cannot.
    """
    if out_type not in ('maps', 'summary'):
        raise ValueError(
            f"out_type={out_type!r}: choose from ('maps', 'summary')."
        )
    if out_type == 'summary' and summary_channels is None:
        raise ValueError(
            "the teacher has no summary; use out_type='maps', or another "
            'teacher.'
        )


def select(features: Features, out_type: str) -> tuple[Tensor, ...]:
    """Take what an encoder's ``forward`` gives.

    Args:
        features: Summary and maps.
        out_type: 'maps' or 'summary'.
    """
    if out_type == 'maps':
        return features.maps
    assert features.summary is not None
    return (features.summary,)
