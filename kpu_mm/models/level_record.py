"""LevelRecord: checkpoints that know what their projectors connect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.logging import print_log
from torch import Tensor, nn

from kpu_mm.weights.state_dict import json_from_tensor, json_to_tensor


class TeacherLevels(NamedTuple):
    """Where a teacher's maps meet the student's levels.

    Args:
        strides: Pixels per cell of each of the teacher's maps.
        pairs: (teacher map, student level) of each of the projector's MLPs.
    """

    strides: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]


class LevelRecord(nn.Module):
    """A part of a distiller that has no weights, only a place in its state.

    Loading compares: a projector of other levels is another projector.

    Args:
        levels: For each teacher, what its projectors connect.
    """

    def __init__(self, levels: Mapping[str, TeacherLevels]) -> None:
        super().__init__()
        self.levels = dict(levels)
        self.register_load_state_dict_pre_hook(_fill_in)

    def get_extra_state(self) -> Tensor:
        """The levels, as JSON in a uint8 tensor."""
        return json_to_tensor({k: v._asdict() for k, v in self.levels.items()})

    def set_extra_state(self, state: Tensor) -> None:
        """Check that the checkpoint's projectors fit these levels.

        Raises:
            RuntimeError: If a teacher's were trained for others.
        """
        for name, saved in read_levels(state).items():
            own = self.levels.get(name, saved)
            if own != saved:
                raise RuntimeError(
                    f"the checkpoint's projectors of teacher '{name}' "
                    f'connect (teacher map, student level) {saved.pairs} at '
                    f'strides {saved.strides}, but this model connects '
                    f'{own.pairs} at {own.strides}; use the teachers that it '
                    'was trained with, or give this one another name.'
                )


def read_levels(state: Tensor) -> dict[str, TeacherLevels]:
    """Read the record of a checkpoint.

    Args:
        state: The value of the key that ends with
            ``level_record._extra_state``, (N,) uint8.

    Returns:
        For each teacher, what its projectors connect.
    """
    return {
        name: TeacherLevels(
            tuple(saved['strides']), tuple(map(tuple, saved['pairs']))
        )
        for name, saved in json_from_tensor(state).items()
    }


def _fill_in(
    module: LevelRecord, state: dict[str, Any], prefix: str, *_: Any
) -> None:
    key = prefix + '_extra_state'
    if key not in state:
        print_log(
            'The checkpoint does not record which student level each '
            "projector takes; the config's teachers are trusted to be those "
            'that it was trained with.',
            logger='current',
        )
        state[key] = module.get_extra_state()
