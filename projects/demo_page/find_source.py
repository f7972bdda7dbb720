"""Where the student of a page is."""

from __future__ import annotations

from kpu_mm.apis.find_config import Model, find_config, is_student


def find_source(model: Model) -> str:
    """The student behind what a user names.

    Args:
        model: A student, or a zero-shot config that has one: its name, its
            path, or the config itself.

    Returns:
        The folder or the checkpoint.

    Raises:
        FileNotFoundError: If there is no such config.
        ValueError: If it has no student.
    """
    if is_student(model):
        return str(model)
    parts = find_config(model).get('model', {})
    for key in ('backbone', 'encoder'):
        source = (parts.get(key) or {}).get('source')
        if source is not None:
            return str(source)
    raise ValueError(
        f"the config '{model}' names no student; pass a folder that "
        'tools/export.py wrote, a checkpoint, or a config such as '
        "'zero_shot/coco/kpu-vitb'."
    )
