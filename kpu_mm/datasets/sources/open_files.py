"""A bounded number of open files."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_MAX_OPEN = 256


class OpenFiles:
    """Read-only file descriptors by number, the last used stay open.

    They are for ``os.pread``, which leaves the position alone, so that a
    forked process may share them.

    Args:
        paths: The files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._open: OrderedDict[int, int] = OrderedDict()

    def __getitem__(self, number: int) -> int:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        descriptor = os.open(self._paths[number], os.O_RDONLY | os.O_CLOEXEC)
        self._open[number] = descriptor
        if len(self._open) > _MAX_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def close(self) -> None:
        """Close all."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {'_paths': self._paths, '_open': OrderedDict()}
