"""Weights: files, folders and the hub, read as data that cannot run code.

Checkpoints are read safely from the moment that kpu_mm is imported.

MMEngine's loaders take seconds to import, so they are not imported here: they
are replaced at the moment that somebody else imports them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_LOADERS = 'mmengine.runner.checkpoint'


def guard_checkpoints() -> None:
    """Have every checkpoint in this process read as data."""
    # torch refuses to work if both variables are set. Who sets the other one
    # asks for pickles, which MMEngine's loader of local files still refuses.
    if 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD' not in os.environ:
        os.environ.setdefault('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    if _LOADERS in sys.modules:
        _guard()
    else:
        sys.meta_path.insert(0, _LoadersFinder())


def _guard() -> None:
    # it imports torch and MMEngine's loaders
    from kpu_mm.weights.checkpoint_file import guard_loading

    guard_loading()


class _LoadersFinder(MetaPathFinder):
    """Finds MMEngine's loaders once, and guards them when they have run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the one module that is guarded; others are left to others."""
        if fullname != _LOADERS:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        loader: Any = spec and spec.loader
        run = loader.exec_module

        def run_and_guard(module: ModuleType) -> None:
            run(module)
            _guard()

        loader.exec_module = run_and_guard
        return spec
