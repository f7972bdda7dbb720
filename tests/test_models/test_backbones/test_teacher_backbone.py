import copy
import sys
from subprocess import run

import pytest
import torch

from kpu_mm.models.teachers import DINOTeacher, GroundingDINOTeacher
from kpu_mm.registry import MODELS

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)


def build(teacher, source, **kwargs):
    torch.manual_seed(0)
    config = dict(type=f'kpu_mm.{teacher}', source=str(source))
    return MODELS.build(
        dict(type='kpu_mm.TeacherBackbone', teacher=config, **{'embed_dims': 8, **kwargs})
    )


@pytest.mark.parametrize('size', [(64, 64), (61, 90), (33, 47)])
def test_pyramid_of_a_vit(dinov2_dir, size):
    backbone = build('DINOTeacher', dinov2_dir)
    maps = backbone(torch.randn(2, 3, *size))
    for m, stride in zip(maps, (4, 8, 16, 32), strict=True):
        assert m.shape == (2, 8, *(-(-side // stride) for side in size))
    sum(m.square().sum() for m in maps).backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_pyramid_of_a_hierarchy(grounding_dino_dir):
    """Only stride 4 is missing, and is made from stride 8."""
    backbone = build('GroundingDINOTeacher', grounding_dino_dir)
    channels = backbone.teacher.channels
    firsts = {k: level.layers[0] for k, level in backbone.levels.items()}
    assert isinstance(firsts['0'], torch.nn.ConvTranspose2d)
    assert firsts['0'].in_channels == channels[0]
    assert [firsts[k].in_channels for k in '123'] == list(channels)
    maps = backbone(torch.randn(1, 3, 70, 50))
    assert [tuple(m.shape[2:]) for m in maps] == [(18, 13), (9, 7), (5, 4), (3, 2)]
    assert backbone.out_channels == (8, 8, 8, 8)


def test_teacher_sees_raw_images(dinov2_dir):
    backbone = build('DINOTeacher', dinov2_dir, out_type='summary')
    raw = torch.randint(0, 256, (2, 3, 56, 70)).float()
    (summary,) = backbone((raw - MEAN) / STD)
    expected = DINOTeacher(str(dinov2_dir))(raw).summary
    torch.testing.assert_close(summary, expected, rtol=1e-4, atol=1e-4)
    assert backbone.out_channels == (48,)
    assert not list(backbone.parameters())


def test_summary_of_a_teacher_without_one(grounding_dino_dir):
    backbone = build('GroundingDINOTeacher', grounding_dino_dir, out_type='summary')
    raw = torch.randint(0, 256, (2, 3, 64, 96)).float()
    (summary,) = backbone((raw - MEAN) / STD)
    teacher = GroundingDINOTeacher(str(grounding_dino_dir))
    expected = teacher(raw).maps[2].flatten(2).mean(2)
    torch.testing.assert_close(summary, expected, rtol=1e-4, atol=1e-4)
    assert backbone.out_channels == tuple(expected.shape[1:])


def test_teacher_is_nowhere(dinov2_dir):
    """Not in parameters, checkpoints, modes; but it follows to a dtype."""
    backbone = build('DINOTeacher', dinov2_dir)
    names = {n.split('.')[0] for n, _ in backbone.named_parameters()}
    assert names == {'levels'}
    assert all(k.startswith('levels.') for k in backbone.state_dict())
    teacher = backbone.teacher
    before = copy.deepcopy(teacher.state_dict())
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    backbone.train()
    sum(m.sum() for m in backbone(torch.randn(1, 3, 64, 64))).backward()
    optimizer.step()
    assert not any(m.training for m in teacher.modules())
    for key, value in teacher.state_dict().items():
        assert torch.equal(value, before[key]), key
    backbone.double()
    assert next(teacher.parameters()).dtype == torch.float64
    backbone.float()


def test_some_levels(dinov2_dir):
    backbone = build('DINOTeacher', dinov2_dir, out_indices=(1, 3))
    assert [m.shape[-1] for m in backbone(torch.randn(1, 3, 64, 64))] == [8, 2]
    assert backbone.out_channels == (8, 8)


def test_refusals(dinov2_dir):
    with pytest.raises(ValueError, match='which is no teacher'):
        build('KPUBackbone', dinov2_dir)
    with pytest.raises(ValueError, match='out_type='):
        build('DINOTeacher', dinov2_dir, out_type='summary_spatial')


@pytest.mark.slow
def test_other_backbones_load_no_teachers():
    code = (
        "import sys; from kpu_mm.models import KPUBackbone; assert 'open_clip' not in sys.modules"
    )
    run([sys.executable, '-c', code], check=True)


def is_in(name, parts):
    return any(part in name for part in parts)


@pytest.mark.parametrize(
    ('teacher', 'folder', 'out_type', 'idle'),
    [
        ('GroundingDINOTeacher', 'grounding_dino_dir', 'pyramid', ()),
        ('DINOTeacher', 'dinov2_dir', 'pyramid', ('mask_token',)),
        ('DINOTeacher', 'dinov2_dir', 'summary', ('mask_token',)),
    ],
)
def test_a_teacher_that_learns(request, teacher, folder, out_type, idle):
    source = request.getfixturevalue(folder)
    frozen = build(teacher, source, out_type=out_type)
    backbone = build(teacher, source, out_type=out_type, frozen=False).train()
    frozen.load_state_dict(
        {k: v for k, v in backbone.state_dict().items() if not k.startswith('tuned.')}
    )
    images = torch.randn(2, 3, 64, 96)
    outputs = backbone(images)
    for ours, wanted in zip(outputs, frozen(images), strict=True):
        assert torch.equal(ours, wanted)

    sum(m.square().sum() for m in outputs).backward()
    weights = dict(backbone.tuned.named_parameters())
    still = {name for name, weight in weights.items() if not weight.requires_grad}
    assert all(is_in(name, idle) for name in still) and len(still) == len(idle)
    assert all(weights[name].grad is not None for name in weights.keys() - still)
    before = copy.deepcopy(backbone.state_dict())
    trained = [p for p in backbone.parameters() if p.requires_grad]
    torch.optim.SGD(trained, lr=0.01).step()

    # a checkpoint holds what was learnt
    assert not torch.equal(backbone(images)[-1], outputs[-1])
    again = build(teacher, source, out_type=out_type, frozen=False)
    again.load_state_dict(backbone.state_dict())
    assert torch.equal(again(images)[-1], backbone(images)[-1])
    backbone.load_state_dict(before)
    assert torch.equal(backbone(images)[-1], outputs[-1])
    with torch.no_grad():
        assert not backbone(images)[-1].requires_grad


def test_text_towers_do_not_learn(clip_dir):
    backbone = MODELS.build(
        dict(
            type='kpu_mm.TeacherBackbone',
            teacher=dict(type='kpu_mm.CLIPTeacher', model=f'local-dir:{clip_dir}'),
            embed_dims=8,
            frozen=False,
        )
    )
    sum(m.square().sum() for m in backbone(torch.randn(1, 3, 64, 64))).backward()
    # DDP waits for each parameter that wants a gradient
    assert all((p.grad is not None) == p.requires_grad for p in backbone.parameters())
    learning = {n for n, p in backbone.tuned.named_parameters() if p.requires_grad}
    assert any('attn' in name for name in learning)


def test_what_gives_no_gradients_cannot_learn(dinov2_dir, monkeypatch):
    monkeypatch.setattr(DINOTeacher, 'extract', torch.no_grad()(DINOTeacher.extract))
    with pytest.raises(ValueError, match='DINOTeacher gives no gradients; set frozen=True'):
        build('DINOTeacher', dinov2_dir, frozen=False)
