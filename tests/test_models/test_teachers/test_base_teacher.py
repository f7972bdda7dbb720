import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from kpu_mm.models.teachers import (
    BaseTeacher,
    CLIPTeacher,
    DINOTeacher,
    GroundingDINOTeacher,
    TeacherBank,
)
from kpu_mm.structures import Features


class Toy(BaseTeacher):
    def __init__(self, **kwargs):
        super().__init__((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), **kwargs)
        self.net = torch.nn.Conv2d(3, 5, 4, 4)
        self.probe()

    def extract(self, images, mask):
        maps = self.net(images)
        return Features(maps.mean((2, 3)), (maps, maps[..., ::2, ::2]))


def test_probe_sets_the_contract():
    toy = Toy()
    assert toy.summary_channels == 5
    assert toy.channels == (5, 5)
    assert toy.strides == (4, 8)
    assert toy.resolution is None


def test_frozen_without_gradients_or_state():
    toy = Toy().train()
    features = toy(torch.rand(1, 3, 8, 8) * 255)
    assert not features.summary.requires_grad
    assert not toy.training
    assert set(toy.state_dict()) == {'net.weight', 'net.bias'}


def test_normalizes_by_hand():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8)
    prepared, _ = Toy().prepare(images.view(1, 3, 1, 1).expand(1, 3, 4, 4))
    expected = torch.tensor([-2.5, -2 / 3, 1.75]).view(1, 3, 1, 1)
    assert torch.allclose(prepared, expected.expand(1, 3, 4, 4))


def test_uint8_and_float_agree():
    images = torch.randint(0, 256, (1, 3, 9, 13), dtype=torch.uint8)
    a, b = Toy()(images), Toy().prepare(images.float())
    assert torch.equal(Toy().prepare(images)[0], b[0])
    assert a.maps[0].shape == (1, 5, 2, 3)


def test_resizing_equals_pillow():
    # away from black and white: Pillow clips after each of its two passes
    images = torch.randint(64, 192, (1, 3, 60, 90), dtype=torch.uint8)
    toy = Toy(resolution=(32, 40))
    prepared, _ = toy.prepare(images)
    ours = (prepared * toy.std + toy.mean) * 255
    pixels = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    theirs = np.asarray(pixels.resize((40, 32), Image.Resampling.BICUBIC))
    difference = ours[0].permute(1, 2, 0).numpy() - theirs
    assert np.abs(difference).max() < 1.5  # and rounds after each


def test_nearest_multiple():
    toy = Toy(size_divisor=14)
    assert toy.input_size(75, 100) == (70, 98)
    assert toy.input_size(77, 6) == (84, 14)
    assert toy.input_size(28, 42) == (28, 42)


def test_padding_is_zero_and_masked():
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    mask[..., 4:] = False
    toy = Toy()
    prepared, same = toy.prepare(torch.full((1, 3, 8, 8), 200.0), mask)
    assert torch.equal(same, mask)
    assert (prepared[..., 4:] == 0).all()
    assert (prepared[..., :4] != 0).all()
    masks = toy(torch.rand(1, 3, 8, 8), mask).masks
    assert torch.equal(masks[0][0, 0], torch.tensor([[True, False]] * 2))
    assert torch.equal(masks[1], torch.ones(1, 1, 1, 1).bool())


def test_refuses_bad_input():
    with pytest.raises(ValueError, match=r'\(B, 3, H, W\) RGB, got'):
        Toy()(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r'mask must be \(1, 8, 8\)'):
        Toy()(torch.rand(1, 3, 8, 8), torch.ones(1, 4, 4).bool())


def test_refuses_statistics_of_the_255_scale():
    with pytest.raises(ValueError, match='divide values'):
        BaseTeacher((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))


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


@pytest.mark.parametrize(
    ('folder', 'build'),
    [
        ('dinov2_reg_dir', DINOTeacher),
        ('dinov3_dir', DINOTeacher),
        ('grounding_dino_dir', GroundingDINOTeacher),
        ('clip_dir', lambda path: CLIPTeacher(f'local-dir:{path}')),
        ('resnet_clip_dir', lambda path: CLIPTeacher(f'local-dir:{path}')),
        ('siglip_dir', lambda path: CLIPTeacher(f'local-dir:{path}')),
    ],
)
def test_runs_wholly_in_bfloat16_under_autocast(folder, build, request):
    teacher = build(str(request.getfixturevalue(folder)))
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    exact = teacher(images)
    with torch.autocast('cpu', torch.bfloat16):
        fast = teacher(images)
    for (name, a, _), (_, b, _) in zip(exact.outputs(), fast.outputs(), strict=True):
        assert b.dtype == torch.bfloat16, name
        assert (a - b).norm() < 0.03 * a.norm(), name
    assert torch.equal(teacher(images).maps[0], exact.maps[0])
