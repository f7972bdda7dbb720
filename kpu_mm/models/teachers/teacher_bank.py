"""TeacherBank: teachers out of sight of the training machinery."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

from kpu_mm.registry import MODELS, find_model

from .base_teacher import BaseTeacher


class TeacherBank(Mapping[str, BaseTeacher]):
    """Named teachers, invisible to whatever walks the modules of a model.

    It is no ``nn.Module``: the owner's ``state_dict()``, ``parameters()``,
    optimizer, DDP wrapper and EMA copy never meet a teacher. The owner
    forwards its ``_apply`` to :meth:`apply`, so that teachers follow it to a
    device.

    Args:
        teachers: Name to config of a teacher. A name is a non-empty string
            without dots, and no attribute of ``nn.ModuleDict``: the
            teacher's projectors are kept in one.

    Raises:
        ValueError: If a name or type is wrong.
    """

    def __init__(self, teachers: Mapping[str, Mapping[str, Any]]) -> None:
        for name in teachers:
            if not isinstance(name, str) or not name or '.' in name:
                raise ValueError(
                    'the name of a teacher must be a non-empty string '
                    f'without dots, but is {name!r}'
                )
            if hasattr(nn.ModuleDict(), name):
                raise ValueError(
                    f'a teacher cannot be named {name!r}, which is an '
                    'attribute of torch.nn.ModuleDict; choose another name.'
                )
        self._teachers = {
            name: build_teacher(name, config)
            for name, config in teachers.items()
        }

    def __getitem__(self, name: str) -> BaseTeacher:
        return self._teachers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._teachers)

    def __len__(self) -> int:
        return len(self._teachers)

    def __repr__(self) -> str:
        kinds = ', '.join(
            f'{name}={type(teacher).__name__}'
            for name, teacher in self.items()
        )
        return f'TeacherBank({kinds})'

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # a copy of the student, such as its moving average, shares teachers
        return self

    def apply(self, fn: Callable[[Tensor], Tensor]) -> Self:
        """Apply what ``to()``, ``cuda()`` or ``cpu()`` does to tensors.

        Args:
            fn: Tensor to tensor, as given to ``nn.Module._apply``.

        Returns:
            The bank itself.
        """
        for teacher in self.values():
            teacher._apply(fn)
        return self


def build_teacher(name: str, config: Mapping[str, Any]) -> BaseTeacher:
    """Build a teacher, and nothing else.

    The config may come out of an exported folder, so its type must be
    registered: no other name is imported.

    Args:
        name: Its name, for the error.
        config: Its config.

    Raises:
        ValueError: If the type is that of no registered teacher.
    """
    kind = config.get('type')
    found = find_model(kind, BaseTeacher)
    if found is None:
        known = sorted(
            f'kpu_mm.{key}'
            for key, value in MODELS.module_dict.items()
            if isinstance(value, type) and issubclass(value, BaseTeacher)
        )
        raise ValueError(
            f"teacher '{name}' has type {kind!r}, which is no teacher; known "
            f'are {known}'
        )
    teacher: BaseTeacher = MODELS.build(dict(config, type=found))
    return teacher
