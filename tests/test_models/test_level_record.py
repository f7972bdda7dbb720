import pytest
import torch
from torch import nn

from kpu_mm.models import level_record
from kpu_mm.models.level_record import (
    LevelRecord,
    TeacherLevels,
    read_levels,
)

LEVELS = dict(
    clip=TeacherLevels((16,), ((0, 2),)),
    dino=TeacherLevels((8, 16), ((0, 0), (0, 1), (1, 2))),
)


class Owner(nn.Module):
    def __init__(self, levels=LEVELS):
        super().__init__()
        self.head = nn.Linear(2, 2)
        self.level_record = LevelRecord(levels)


def test_state_tells_the_levels(tmp_path):
    torch.save(Owner().state_dict(), tmp_path / 'state.pth')
    state = torch.load(tmp_path / 'state.pth', weights_only=True)
    assert read_levels(state['level_record._extra_state']) == LEVELS
    Owner().load_state_dict(state, strict=True)


def test_other_levels_of_the_same_teacher():
    state = Owner().state_dict()
    other = dict(LEVELS, clip=TeacherLevels((16,), ((0, 3),)))
    with pytest.raises(RuntimeError, match=r"teacher 'clip' connect.*0, 2"):
        Owner(other).load_state_dict(state)


def test_further_and_fewer_teachers():
    one = Owner(dict(clip=LEVELS['clip']))
    Owner().load_state_dict(one.state_dict())
    one.load_state_dict(Owner().state_dict())


def test_state_from_before_the_record(monkeypatch):
    said = []
    monkeypatch.setattr(
        level_record, 'print_log', lambda text, **_: said.append(text)
    )
    state = Owner().state_dict()
    del state['level_record._extra_state']
    Owner().load_state_dict(state, strict=True)
    assert 'does not record which student level' in said[0]
