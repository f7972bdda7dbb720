"""What a student is to learn from one stream."""

from __future__ import annotations

from typing import Any, NamedTuple

from kpu_mm.structures import Features


class Lesson(NamedTuple):
    """A stream's images and what its teachers say of them.

    Args:
        stream: Name of the stream.
        inputs: ``images`` and ``mask``, as :meth:`KPUDistiller.see` takes
            them.
        teachers: Each teacher's summary and all of its maps.
    """

    stream: str
    inputs: dict[str, Any]
    teachers: dict[str, Features]
