"""Test of every task of a model, each with its own metrics."""

from __future__ import annotations

from kpu_mm.registry import LOOPS

from .multi_task_val_loop import MultiTaskValLoop


@LOOPS.register_module()
class MultiTaskTestLoop(MultiTaskValLoop):
    """:class:`MultiTaskValLoop` for tests, with the same arguments."""

    stage = 'test'
