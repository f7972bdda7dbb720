"""Configs of teachers without what only changes how one is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WRAPPERS = ('CachedTeacher', 'UnpaddedTeacher')


def bare_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the model itself; nothing is imported for it.

    Args:
        config: Config of a teacher.

    Returns:
        The config that a cached or unpadded teacher has as ``teacher``, if
        it has one, else the config itself.
    """
    kind = config.get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    inner = config.get('teacher')
    if name.rpartition('.')[2] in _WRAPPERS and inner is not None:
        return bare_config(inner)
    return dict(config)
