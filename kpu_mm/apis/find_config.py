"""The configs and students that ``model=`` of an Inferencer names."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from mmengine.config import Config
from mmengine.infer import BaseInferencer

from kpu_mm.models.student import Student, open_student, read_student, read_teachers
from kpu_mm.models.teachers import BaseTeacher
from kpu_mm.registry import find_model

Model: TypeAlias = str | os.PathLike[str] | Config | dict[str, Any]
CHECKPOINT_EXTENSIONS = ('.pth', '.pt', '.safetensors')


def is_student(model: Model, weights: str | None = None) -> bool:
    """Whether this is a student and no config.

    Args:
        model: A folder that ``tools/export.py`` wrote, a checkpoint of a
            distillation run, or a config in any form.
        weights: Weights for a config. Defaults to None.

    Raises:
        ValueError: If there are weights besides a student.
    """
    if not isinstance(model, (str, os.PathLike)):
        return False
    path = Path(model).expanduser()
    if not path.is_dir() and path.suffix not in CHECKPOINT_EXTENSIONS:
        return False
    if weights is not None:
        raise ValueError(
            f"'{model}' is a student already; remove weights='{weights}', or "
            'pass a config as model.'
        )
    return True


def find_config(model: Model) -> Config:
    """Read a config.

    Args:
        model: A config, its path, or the name of one of the package's: its
            path below ``configs`` without extension, such as
            'zero_shot/coco/kpu-vitb'.

    Returns:
        A config that the caller may change.

    Raises:
        FileNotFoundError: If there is no such config.
    """
    # Inferencers change their config, but not the caller's.
    if isinstance(model, Config):
        return copy.deepcopy(model)
    if isinstance(model, dict):
        return Config(copy.deepcopy(model))
    path = Path(model).expanduser()
    if path.suffix == '.py':
        if not path.is_file():
            raise FileNotFoundError(f"there is no config file '{model}'.")
        return Config.fromfile(path)
    # Configs are in .mim of an installed package, in the repository else.
    root = Path(BaseInferencer._get_repo_or_mim_dir('kpu_mm'), 'configs')
    named = {
        str(path.relative_to(root).with_suffix('')): path
        for path in sorted(root.rglob('*.py'))
        if '_base_' not in path.parts
    }
    if str(model) not in named:
        close = difflib.get_close_matches(str(model), named, cutoff=0.4)
        hint = f'did you mean one of {close}?' if close else 'see configs/.'
        raise FileNotFoundError(
            f"'{model}' is neither a folder, a checkpoint nor a config of the package; {hint}"
        )
    return Config.fromfile(named[str(model)])


def find_student(model: Model, weights: str | None = None) -> Student:
    """Load a student.

    Args:
        model: A folder that ``tools/export.py`` wrote, a checkpoint of a
            distillation run, or a config of a model with a student.
        weights: The checkpoint for a config. Defaults to None: a zero-shot
            config names its student.

    Returns:
        The student.

    Raises:
        FileNotFoundError: If something is missing.
        RuntimeError: If something is broken or does not fit.
        ValueError: If weights are missing or too many, or the config has no
            student.
    """
    if is_student(model, weights):
        return open_student(str(model))
    cfg = find_config(model)
    # Zero-shot configs have a ProjectedBackbone under one of these keys.
    for key in ('backbone', 'encoder'):
        encoder: Any = cfg.model.get(key) or {}
        if 'source' in encoder:
            if weights is not None:
                return open_student(weights)
            return open_student(encoder.source, encoder.get('config'))
    if weights is None:
        raise ValueError(
            'the config does not say where its weights are; pass the checkpoint as weights.'
        )
    return read_student(cfg.model.to_dict(), weights)


class Places(NamedTuple):
    """Where a zero-shot config has its student and its teacher.

    Args:
        default: Name of the config into which a student alone is put.
        encoder: Key of the model's image encoder.
        teacher: Keys, one in the other, of the teacher's arguments.
        kind: The teacher's class.
    """

    default: str
    encoder: str
    teacher: tuple[str, ...]
    kind: type[BaseTeacher]


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
    alone = is_student(model, weights)
    cfg = find_config(places.default if alone else model)
    owner = cfg.get('model')
    *path, key = places.teacher
    try:
        for name in path:
            owner = owner[name]
        # It may be None, or a list as in cascades, in a config of another
        # task.
        owner[key].items()
    except (AttributeError, KeyError, TypeError):
        raise ValueError(
            f"the config '{getattr(model, 'filename', model)}' is not one of "
            f'this task: its model has no {".".join(places.teacher)}; see '
            f"'{places.default}'."
        ) from None
    if alone:
        weights = str(model)
        teachers = read_teachers(weights)
        teacher = choose_teacher(teachers, places.kind, teacher)
        # The class is that of the place, which takes no type.
        owner[key] = dict(teachers[teacher])
        del owner[key]['type']
    encoder: Any = cfg.model.get(places.encoder) or {}
    if 'source' in encoder:
        if weights is not None:
            encoder.source = weights
            # It is the config of the run of another student.
            encoder.pop('config', None)
        if teacher is not None:
            encoder.teacher = teacher
    elif weights is not None or teacher is not None:
        raise ValueError(
            'the config has no student, only a teacher; leave weights and '
            f"teacher out, or use '{places.default}'."
        )
    owner[key].update(teacher_cfg or {})
    return cfg


def choose_teacher(teachers: Mapping[str, Any], kind: type, name: str | None = None) -> str:
    """Choose the only teacher of a class, or check a given choice.

    Args:
        teachers: Configs of a student's teachers by name.
        kind: The class.
        name: The choice. Defaults to None, the only teacher of the class.

    Raises:
        ValueError: If there is no such teacher, or there are several.
    """
    fitting = [key for key, config in teachers.items() if find_model(config['type'], kind)]
    if name is None and len(fitting) == 1:
        (name,) = fitting
    if name not in fitting:
        raise ValueError(
            f'the student has the teachers {list(teachers)}; this task needs one of class '
            f'{kind.__name__}, which are {fitting}: name one of these with teacher=...'
        )
    return str(name)
