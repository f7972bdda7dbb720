"""Configs of zero-shot models around any student and teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.config import Config

from kpu_mm.models.student import read_teachers
from kpu_mm.models.teachers import BaseTeacher
from kpu_mm.registry import find_model

from .find_config import Model, find_config, is_student
from .find_student import refuse_weights


class Places(NamedTuple):
    """Where a zero-shot config has its student and its teacher.

    Args:
        default: Name of the config that a student alone is put into.
        encoder: Key of the model's image encoder.
        teacher: Keys, one in the other, of the teacher's arguments.
        kind: Name of the teacher's class.
    """

    default: str
    encoder: str
    teacher: tuple[str, ...]
    kind: str


def zero_shot_config(
    places: Places,
    model: Model,
    weights: str | None = None,
    teacher: str | None = None,
    teacher_cfg: Mapping[str, Any] | None = None,
) -> Config:
    """Put a student and a teacher into their places.

    Args:
        places: Where they belong.
        model: A zero-shot config, or a student.
        weights: The student for a config. Defaults to None, the config's
            own.
        teacher: Which of the student's teachers; None takes the only one of
            the kind. Defaults to None.
        teacher_cfg: Arguments of the teacher that differ from those of the
            config or of the student's run. Defaults to None.

    Returns:
        The config.

    Raises:
        FileNotFoundError: If something is missing.
        ValueError: If the student has no such teacher, or arguments
            contradict.
    """
    if is_student(model):
        refuse_weights(model, weights)
        cfg = _around_student(places, str(model), teacher)
    else:
        cfg = find_config(model)
        _check_kind(cfg, places, model)
        if weights is not None:
            student = _student_of(cfg, places)
            student.source = weights
            student.pop('config', None)  # that of another run
        if teacher is not None:
            _student_of(cfg, places).teacher = teacher
    _teacher_of(cfg, places).update(teacher_cfg or {})
    return cfg


def _around_student(
    places: Places, source: str, teacher: str | None
) -> Config:
    recorded = read_teachers(source)
    name = _choose(recorded, places.kind, teacher, source)
    cfg = find_config(places.default)
    _student_of(cfg, places).update(source=source, teacher=name)
    arguments = {k: v for k, v in recorded[name].items() if k != 'type'}
    owner = cfg.model
    for key in places.teacher[:-1]:
        owner = owner[key]
    owner[places.teacher[-1]] = arguments
    return cfg


def _choose(
    recorded: Mapping[str, Any], kind: str, teacher: str | None, source: str
) -> str:
    wanted = find_model(kind, BaseTeacher)
    assert wanted is not None
    fitting = [
        name
        for name, config in recorded.items()
        if find_model(config['type'], wanted)
    ]
    if teacher is None and len(fitting) == 1:
        return fitting[0]
    if teacher in fitting:
        return str(teacher)
    raise ValueError(
        f"the student '{source}' has the teachers {list(recorded)}, of which "
        f'{fitting} are of class {kind}; '
        + (
            'name one of these with teacher=...'
            if fitting
            else 'this task needs one.'
        )
    )


def _check_kind(cfg: Config, places: Places, model: Model) -> None:
    try:
        _teacher_of(cfg, places).items()
    except (AttributeError, KeyError, TypeError):
        raise ValueError(
            f"the config '{getattr(model, 'filename', model)}' is not one of "
            f'this task: its model has no {".".join(places.teacher)}; see '
            f"'{places.default}'."
        ) from None


def _teacher_of(cfg: Config, places: Places) -> Any:
    part = cfg.model
    for key in places.teacher:
        part = part[key]
    return part


def _student_of(cfg: Config, places: Places) -> Any:
    encoder = cfg.model[places.encoder]
    if encoder is None or 'source' not in encoder:
        raise ValueError(
            'the config has no student, only a teacher; leave weights and '
            'teacher out, or use '
            f"'{places.default}'."
        )
    return encoder
