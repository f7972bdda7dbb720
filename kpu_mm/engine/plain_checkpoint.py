"""Checkpoints of tensors and plain values, from which MMEngine resumes.

MMEngine's message hub saves numpy arrays inside its own class and numpy
scalars, for which a reader must allow more than weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_PARTS = ('meta', 'message_hub', 'param_schedulers')


def to_plain(checkpoint: dict[str, Any]) -> None:
    """Replace what is no tensor and no plain value, in place.

    Args:
        checkpoint: What MMEngine's runner is about to save.
    """
    for part in _PARTS:
        if part in checkpoint:
            checkpoint[part] = _plain(checkpoint[part])


def from_plain(checkpoint: dict[str, Any]) -> None:
    """Restore the histories that :func:`to_plain` replaced, in place.

    Args:
        checkpoint: What was loaded; a checkpoint of MMEngine's own runner
            stays as it is.
    """
    scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
    for name, value in scalars.items():
        if isinstance(value, dict):
            scalars[name] = HistoryBuffer(
                value['log_history'].cpu().numpy(),
                value['count_history'].cpu().numpy(),
                value['max_length'],
            )


def _plain(value: Any) -> Any:
    if isinstance(value, HistoryBuffer):
        logs, counts = value.data
        return dict(
            log_history=torch.from_numpy(np.array(logs)),
            count_history=torch.from_numpy(np.array(counts)),
            max_length=value.max_length,
        )
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value
