"""The student behind ``model=`` of an Inferencer."""

from __future__ import annotations

from kpu_mm.models.student import Student, open_student, read_student

from .find_config import Model, find_config, is_student


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
    if is_student(model):
        refuse_weights(model, weights)
        return open_student(str(model))
    cfg = find_config(model)
    for key in ('backbone', 'encoder'):
        encoder = cfg.model.get(key)
        if encoder is not None and 'source' in encoder:
            if weights is not None:
                return open_student(weights)
            return open_student(encoder.source, encoder.get('config'))
    if weights is None:
        raise ValueError(
            'the config does not say where its weights are; pass the '
            'checkpoint as weights.'
        )
    return read_student(cfg.model.to_dict(), weights)


def refuse_weights(model: Model, weights: str | None) -> None:
    """Raise if a student is given twice.

    Args:
        model: A student.
        weights: Another one, or None.

    Raises:
        ValueError: If it is not None.
    """
    if weights is not None:
        raise ValueError(
            f"'{model}' is a student already; remove weights='{weights}', or "
            'pass a config as model.'
        )
