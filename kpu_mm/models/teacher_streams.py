"""TeacherStreams: which teacher sees the images of which streams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor


class TeacherStreams:
    """The streams of each teacher, and the teachers of each stream.

    Args:
        teachers: Names of the teachers.
        streams: For teachers whose images are not those of the stream of
            their own name, the name of another stream, or names of several.

    Attributes:
        of_teacher: For each teacher, the names of its streams.
        of_stream: For each stream, the names of its teachers.

    Raises:
        ValueError: If there is no such teacher, or one sees no stream, or
            one twice.
    """

    def __init__(self, teachers: Iterable[str], streams: Mapping[str, str | Sequence[str]]) -> None:
        self.of_teacher: dict[str, tuple[str, ...]] = {name: (name,) for name in teachers}
        unknown = set(streams) - set(self.of_teacher)
        if unknown:
            raise ValueError(
                f'streams={streams}: there is no teacher {sorted(unknown)}; '
                f'the teachers are {sorted(self.of_teacher)}.'
            )
        for name, given in streams.items():
            found = (given,) if isinstance(given, str) else tuple(given)
            if not found:
                raise ValueError(
                    f"streams: teacher '{name}' sees no stream; name one, or leave the teacher out."
                )
            if len(set(found)) < len(found):
                raise ValueError(
                    f"streams: teacher '{name}' has a stream twice in {list(found)}; name each "
                    'once, as all of them count the same.'
                )
            self.of_teacher[name] = found
        self.of_stream: dict[str, list[str]] = {}
        for name, found in self.of_teacher.items():
            for stream in found:
                self.of_stream.setdefault(stream, []).append(name)

    def label(self, teacher: str, stream: str) -> str:
        """What logs call a teacher: its name, with the stream if it has more.

        Args:
            teacher: The teacher.
            stream: One of its streams.
        """
        alone = len(self.of_teacher[teacher]) == 1
        return teacher if alone else f'{teacher}/{stream}'

    def join(self, teacher: str, losses: Sequence[Tensor]) -> Tensor:
        """Join a teacher's losses so that each of its streams counts the same.

        The mean of the result is the sum of the parts' means over the number
        of streams. So the loss of all streams together is the sum of what
        each one gives by itself, as ``backward='per_stream'`` needs it.

        Args:
            teacher: The teacher.
            losses: For some or all of its streams, one value per image, each
                (B_s,).

        Returns:
            (B,), B the sum of the B_s.
        """
        # weights that turn the mean over all images into the mean of means
        streams = len(self.of_teacher[teacher])
        total = sum(len(part) for part in losses)
        return torch.cat([part * (total / (streams * len(part))) for part in losses])
