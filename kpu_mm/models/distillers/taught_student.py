"""A student and its teachers, who look at the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from ..level_record import LevelRecord, TeacherLevels
from ..multi_stream_model import MultiStreamModel
from ..teachers import TeacherBank
from .build_normalizers import build_normalizers, fit_normalizers
from .lesson import Lesson
from .level_pairs import pair_levels, select
from .options import by_stream, streams_of


class TaughtStudent(MultiStreamModel):
    """What the student sees, what the teachers say, and which maps meet.

    Teachers stay outside of parameters, checkpoints, optimiser and DDP.

    Args:
        student: As :class:`KPUDistiller` takes it.
        teachers: As :class:`KPUDistiller` takes it.
        streams: As :class:`KPUDistiller` takes it. Defaults to None.
        normalizer: As :class:`KPUDistiller` takes it. Defaults to None.
        backward: As :class:`KPUDistiller` takes it. Defaults to 'joint'.
        init_cfg: Initialisation of the whole model. Defaults to None.

    Raises:
        ValueError: If an option has a value that is not listed.
    """

    def __init__(
        self,
        student: dict[str, Any],
        teachers: dict[str, dict[str, Any]],
        streams: dict[str, str | Sequence[str]] | None = None,
        normalizer: dict[str, Any] | None = None,
        backward: str = 'joint',
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(backward=backward, init_cfg=init_cfg)
        self.student = MODELS.build(
            student, default_args=dict(out_type='features')
        )
        self.teachers = TeacherBank(teachers)
        self.normalizers: Any = build_normalizers(normalizer, self.teachers)
        self.streams = streams_of(teachers, streams)
        self.taught_by = by_stream(self.streams)
        self.pairs = pair_levels(
            {name: t.strides for name, t in self.teachers.items()},
            self.student.strides,
        )
        self.level_record = LevelRecord(
            {
                name: TeacherLevels(teacher.strides, tuple(self.pairs[name]))
                for name, teacher in self.teachers.items()
            }
        )
        self.memory_format = torch.contiguous_format

    def use_channels_last(self) -> None:
        """Keep convolution weights and images in channels-last layout."""
        self.memory_format = torch.channels_last
        self.to(memory_format=torch.channels_last)

    def compile_models(self, options: dict[str, Any]) -> None:
        """Compile the student and each teacher.

        Args:
            options: Arguments of ``torch.compile``.
        """
        self.student.extract = torch.compile(self.student.extract, **options)
        for teacher in self.teachers.values():
            teacher.compile(**options)

    @property
    def stream_names(self) -> tuple[str, ...]:
        """The streams that the teachers see."""
        return tuple(self.taught_by)

    def lesson(self, stream: str, batch: Mapping[str, Any]) -> Lesson:
        """What the teachers say of a stream's images.

        Args:
            stream: Name of the stream.
            batch: As :meth:`loss` takes it.
        """
        inputs, stored = self._inputs(batch), batch.get('features')
        taught = self.taught_by[stream]
        said = {
            name: self.teach(name, **inputs, stored=stored) for name in taught
        }
        return Lesson(stream, inputs, said)

    def label(self, name: str, stream: str) -> str:
        """What logs call a teacher: its name, with the stream if it has more.

        Args:
            name: The teacher.
            stream: The stream.
        """
        return name if len(self.streams[name]) == 1 else f'{name}/{stream}'

    def see(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """The student's summary and all of its maps.

        Args:
            images: (B, 3, H, W), raw RGB in [0, 255].
            mask: (B, H, W) bool, True where the image is; None where all is.
        """
        features: Features = self.student.encode(images, mask)
        return features

    def teach(
        self,
        name: str,
        images: Tensor,
        mask: Tensor | None = None,
        stored: Mapping[str, Any] | None = None,
    ) -> Features:
        """What the student learns of a teacher: its normalised features.

        Args:
            name: The teacher.
            images: (B, 3, H, W), raw RGB in [0, 255].
            mask: (B, H, W) bool, True where the image is; None where all is.
            stored: As :meth:`observe` takes it. Defaults to None.
        """
        features = self.observe(name, images, mask, stored)
        if name in self.normalizers:
            features = self.normalizers[name](features)
        return features

    def observe(
        self,
        name: str,
        images: Tensor,
        mask: Tensor | None = None,
        stored: Mapping[str, Any] | None = None,
    ) -> Features:
        """A teacher's summary and all of its maps, in its own space.

        Args:
            name: The teacher.
            images: (B, 3, H, W), raw RGB in [0, 255].
            mask: (B, H, W) bool, True where the image is; None where all is.
            stored: Features of these images from caches, by teacher; the
                teacher is not run if its own are there. Defaults to None.
        """
        if stored is not None and name in stored:
            return self.teachers[name].recall(stored[name])
        features: Features = self.teachers[name](images, mask)
        return features

    def pair(
        self, name: str, student: Features, teacher: Features
    ) -> tuple[Features, Features]:
        """Lay out student's and teacher's maps pair by pair.

        Args:
            name: The teacher.
            student: What :meth:`see` gave.
            teacher: What :meth:`teach` gave.
        """
        maps, levels = zip(*self.pairs[name], strict=True)
        return select(student, levels), select(teacher, maps)

    def extract(
        self,
        name: str,
        images: Tensor,
        mask: Tensor | None = None,
        stored: Mapping[str, Any] | None = None,
    ) -> tuple[Features, Features]:
        """Student's and teacher's features of the same images, map by map.

        Args:
            name: The teacher.
            images: (B, 3, H, W), raw RGB in [0, 255].
            mask: (B, H, W) bool, True where the image is; None where all is.
            stored: As :meth:`observe` takes it. Defaults to None.
        """
        inputs = self._inputs(dict(images=images, mask=mask))
        teacher = self.teach(name, **inputs, stored=stored)
        return self.pair(name, self.see(**inputs), teacher)

    def fit_normalizers(
        self,
        loaders: Mapping[str, Iterable[Mapping[str, Any]]],
        num_images: int,
    ) -> list[str]:
        """Fit those normalisers that have no statistics yet.

        All processes share the images and get the same statistics.

        Args:
            loaders: For each stream, endless batches of its images.
            num_images: So many images of each stream are looked at, rounded
                up to whole batches.

        Returns:
            The teachers whose normalisers were fitted.

        Raises:
            ValueError: If a teacher's features do not define a normaliser.
        """
        return fit_normalizers(self, loaders, num_images)

    def _inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        images = batch['images'].contiguous(memory_format=self.memory_format)
        return dict(images=images, mask=batch.get('mask'))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        """Take the teachers along when the model moves."""
        super()._apply(fn, recurse)
        self.teachers.apply(fn)
        return self
