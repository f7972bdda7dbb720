"""Refuse a backbone whose maps are not those that come after it expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from kpu_mm.registry import HOOKS

_HEADS = ('decode_head', 'auxiliary_head', 'head')


@HOOKS.register_module()
class BackboneFitHook(Hook):
    """Compare what the backbone gives with what neck or heads take.

    Before a run, for backbones with ``out_channels`` (KPUBackbone,
    TeacherBackbone). Without it a missing stride or another width ends in an
    index or a shape error deep in a head.
    """

    def before_run(self, runner: Runner) -> None:
        """Compare numbers and widths of maps.

        Args:
            runner: The runner.

        Raises:
            ValueError: If they differ.
        """
        model: Any = runner.model
        if is_model_wrapper(model):
            model = model.module
        given = getattr(getattr(model, 'backbone', None), 'out_channels', None)
        if given is None:
            return
        neck = getattr(model, 'neck', None)
        takers = {'neck': neck} if neck is not None else {}
        if not takers:
            takers = {name: getattr(model, name, None) for name in _HEADS}
        for name, taker in takers.items():
            wanted = getattr(taker, 'in_channels', None)
            if wanted is not None:
                _compare(name, wanted, getattr(taker, 'in_index', None), given)


def _compare(
    name: str,
    wanted: int | Sequence[int],
    indices: int | Sequence[int] | None,
    given: Sequence[int],
) -> None:
    """Channels that one part wants, and which maps of the backbone."""
    several = not isinstance(wanted, int)
    widths = list(wanted) if several else [wanted]  # type: ignore[arg-type]
    if indices is None:
        # a neck takes all maps, a classification head the last one
        found = list(given) if several else list(given[-1:])
    else:
        places = [indices] if isinstance(indices, int) else list(indices)
        if max(places) >= len(given):
            raise ValueError(
                f'{name} takes map {max(places)} (in_index), but the backbone '
                f'gives {len(given)} maps; choose its out_indices or in_index '
                'so that they fit.'
            )
        found = [given[i] for i in places]
        if not several and len(found) > 1:  # maps that the head joins
            found = [sum(found)]
    if found != widths:
        raise ValueError(
            f'{name} takes {len(widths)} maps of {widths} channels '
            f'(in_channels), but the backbone gives {len(found)} of {found}; '
            'set in_channels, or the out_indices of the backbone.'
        )
