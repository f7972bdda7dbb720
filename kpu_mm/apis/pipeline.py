"""A test pipeline for images that are in memory already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .read_images import NamedImage

Step = Mapping[str, Any]


def load_backend(steps: Sequence[Step]) -> str:
    """The decoder of images that a pipeline asks for.

    Args:
        steps: Configs of its transforms.
    """
    loads = [step for step in steps if _name(step) == 'LoadImageFromFile']
    return str(loads[0].get('imdecode_backend', 'cv2')) if loads else 'cv2'


def without_loading(steps: Sequence[Step]) -> list[Step]:
    """Leave out what loads images and labels.

    Args:
        steps: Configs of its transforms.
    """
    return [step for step in steps if not _name(step).startswith('Load')]


def as_loaded(image: NamedImage) -> dict[str, Any]:
    """What MMCV's LoadImageFromFile would leave behind.

    Args:
        image: The image.
    """
    shape = image.bgr.shape[:2]
    return dict(
        img=image.bgr,
        img_path=image.path,
        img_shape=shape,
        ori_shape=shape,
        img_id=0,
    )


def _name(step: Step) -> str:
    return str(step['type']).rpartition('.')[2]
