"""From the checkpoint of a joint run to that of one task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BACKBONE = 'backbone.'
_TASKS = 'tasks.'


def tasks_in(checkpoint: Mapping[str, Any]) -> list[str]:
    """Name the tasks of a checkpoint.

    Args:
        checkpoint: What MMEngine's runner saves.

    Returns:
        The tasks of a :class:`MultiTaskModel`; none for any other model.
    """
    names = [
        key.split('.')[1]
        for key in checkpoint.get('state_dict', ())
        if key.startswith(_TASKS)
    ]
    return list(dict.fromkeys(names))


def split_checkpoint(
    checkpoint: Mapping[str, Any], task: str
) -> dict[str, Any]:
    """Take backbone and one task out of a joint checkpoint.

    Args:
        checkpoint: That of a :class:`MultiTaskModel`.
        task: The task.

    Returns:
        Weights as the task's own model names them, and the meta information
        of its dataset.

    Raises:
        ValueError: If the checkpoint has no such task.
    """
    tasks = tasks_in(checkpoint)
    if task not in tasks:
        raise ValueError(
            f"the checkpoint has no task '{task}'; its tasks are {tasks}."
        )
    own = f'{_TASKS}{task}.'
    state = {
        key.removeprefix(own): value
        for key, value in checkpoint['state_dict'].items()
        if key.startswith((_BACKBONE, own))
    }
    meta = dict(checkpoint.get('meta', {}))
    meta['dataset_meta'] = (meta.get('dataset_meta') or {}).get(task)
    return dict(state_dict=state, meta=meta)
