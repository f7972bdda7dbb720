import copy

import pytest
import torch
from torch import nn

from kpu_mm.models.teachers import DINOTeacher, TeacherBank


class Owner(nn.Module):
    def __init__(self, bank):
        super().__init__()
        self.student = nn.Linear(2, 2)
        self.teachers = bank


@pytest.fixture
def bank(dinov2_dir):
    config = dict(type='kpu_mm.DINOTeacher', source=str(dinov2_dir))
    return TeacherBank(dict(dino=config))


def test_is_a_mapping(bank):
    assert list(bank) == ['dino']
    assert len(bank) == 1
    assert isinstance(bank['dino'], DINOTeacher)
    assert dict(bank.items()) == {'dino': bank['dino']}
    assert repr(bank) == 'TeacherBank(dino=DINOTeacher)'


def test_is_invisible_to_its_owner(bank):
    owner = Owner(bank)
    assert set(owner.state_dict()) == {'student.weight', 'student.bias'}
    assert len(list(owner.parameters())) == 2
    assert not list(owner.buffers())
    # the bank, but none of its teachers
    assert list(owner.modules()) == [owner, owner.student, bank]
    owner.train()
    assert not bank['dino'].training


def test_follows_its_owner(bank):
    owner = Owner(bank).double()
    assert {p.dtype for p in bank['dino'].parameters()} == {torch.float64}
    assert bank['dino'].mean.dtype == torch.float64
    owner.to('meta')
    assert bank['dino'].mean.is_meta


def test_copies_share_the_teachers(bank):
    twin = copy.deepcopy(Owner(bank))
    assert twin.teachers is bank
    assert twin.student is not None


@pytest.mark.parametrize('name', ['', 'a.b', 3])
def test_refuses_names(name, dinov2_dir):
    config = dict(type='kpu_mm.DINOTeacher', source=str(dinov2_dir))
    with pytest.raises(ValueError, match='without dots'):
        TeacherBank({name: config})


@pytest.mark.parametrize('name', ['keys', 'training', 'to'])
def test_refuses_names_that_modules_need(name):
    with pytest.raises(ValueError, match=f"cannot be named '{name}'"):
        TeacherBank({name: dict(type='kpu_mm.DINOTeacher', source='none')})


@pytest.mark.parametrize('kind', ['kpu_mm.Nobody', 'Conv2d', None])
def test_unknown_type_names_the_teachers(kind):
    with pytest.raises(ValueError, match=r"'x' has type .*DINOTeacher"):
        TeacherBank(dict(x=dict(type=kind)))
