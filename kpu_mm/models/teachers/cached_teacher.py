"""A teacher whose features were stored before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from kpu_mm.datasets.feature_cache import (
    StoredFeatures,
    open_record,
    plain,
    refuse_other,
)
from kpu_mm.registry import MODELS
from kpu_mm.structures import Features
from kpu_mm.weights.state_dict import checksum

from ..bare_config import bare_config
from .base_teacher import BaseTeacher
from .teacher_bank import build_teacher
from .unpadded_teacher import check_padding


@MODELS.register_module()
class CachedTeacher(BaseTeacher):
    """Features from a cache in place of a model.

    The stream's dataset reads them (``features`` of
    :class:`~kpu_mm.datasets.UnlabeledImages`); channels and strides come
    from the cache's record.

    Args:
        cache: What tools/dataset_tools/cache_features.py wrote for this
            teacher.
        teacher: Config of the teacher, to compare with the record. Defaults
            to None, trust the record.
        check_weights: Build that teacher once, to compare its weights, and
            let go of it; else only its config is compared. Defaults to True.

    Raises:
        ValueError: If there is no such cache, or it holds another teacher's
            features.
    """

    def __init__(
        self,
        cache: str,
        teacher: dict[str, Any] | None = None,
        check_weights: bool = True,
    ) -> None:
        record = open_record(Path(cache))
        own = record['teacher']
        super().__init__(
            own['mean'], own['std'], own['resolution'], own['size_divisor']
        )
        self.cache = cache
        self.id = record['id']
        self.summary_channels = own['summary_channels']
        self.channels = tuple(own['channels'])
        self.strides = tuple(own['strides'])
        if teacher is not None:
            built = build_teacher('cached', teacher) if check_weights else None
            wanted = describe_teacher(teacher, built, own)
            refuse_other(Path(cache), record, dict(teacher=wanted))

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Refuse to see images.

        Args:
            images: Not used.
            mask: Not used. Defaults to None.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(
            f"the features in '{self.cache}' do not come with these images; "
            "name the cache in `features` of the stream's dataset, or use "
            'the teacher itself.'
        )

    def recall(self, stored: StoredFeatures) -> Features:
        """What the teacher said of a batch, in float32.

        Args:
            stored: What the stream brings for this teacher.

        Raises:
            ValueError: If it is of another cache, or of padded images that
                the teacher's maps cannot be laid on.
        """
        if stored.cache != self.id:
            raise ValueError(
                f'the stream brings features of another cache than '
                f"'{self.cache}'; name the same one in the teacher and in "
                "`features` of the stream's dataset."
            )
        summary, maps, masks = stored.features
        if masks is not None:
            check_padding(self.resolution)
        return Features(
            None if summary is None else summary.float(),
            tuple(m.float() for m in maps),
            masks,
        )


def describe_teacher(
    config: Mapping[str, Any],
    teacher: BaseTeacher | None,
    cached: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a cache records of a teacher.

    Where a config names a file or folder, weights are compared, not places.

    Args:
        config: Its config.
        teacher: The teacher; None if only its config is to be compared.
        cached: The record of a cache to compare with. Defaults to None.
    """
    described = dict(cached or {})
    described['config'] = plain(bare_config(config), 'teacher')
    if teacher is None:
        return described
    for key, there in (cached or {}).get('config', {}).items():
        if _is_path(described['config'].get(key)):
            described['config'][key] = there
    return described | dict(
        weights=checksum(
            value
            for name, value in teacher.state_dict().items()
            if value.is_floating_point()
            and not any(part in name for part in teacher.unread)
        ),
        mean=teacher.mean.flatten().tolist(),
        std=teacher.std.flatten().tolist(),
        resolution=teacher.resolution and list(teacher.resolution),
        size_divisor=teacher.size_divisor,
        summary_channels=teacher.summary_channels,
        channels=list(teacher.channels),
        strides=list(teacher.strides),
    )


def _is_path(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    return Path(value.removeprefix('local-dir:')).expanduser().exists()
