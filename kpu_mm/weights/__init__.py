"""Weights: files, folders and the hub, read as data that cannot run code.

Checkpoints are read safely from the moment that kpu_mm is imported.

MMEngine's loaders take seconds to import, so they are not imported here: they
are replaced at the moment that somebody else imports them.
"""

from __future__ import annotations

import os

from kpu_mm.utils.startup import after_import


def guard_checkpoints() -> None:
    """Have every checkpoint in this process read as data."""
    # torch refuses to work if both variables are set. Who sets the other one
    # asks for pickles, which MMEngine's loader of local files still refuses.
    if 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD' not in os.environ:
        os.environ.setdefault('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    after_import('mmengine.runner.checkpoint', _guard)


def _guard() -> None:
    # it imports torch and MMEngine's loaders
    from kpu_mm.weights.checkpoint_file import guard_loading

    guard_loading()
