import pytest
import torch
from transformers import AutoModel

from kpu_mm.models import KPUDistiller
from kpu_mm.models.teachers import DINOTeacher
from kpu_mm.registry import MODELS

FAMILIES = ['dinov2_dir', 'dinov2_reg_dir', 'dinov3_dir']


def build(source, **kwargs):
    torch.manual_seed(0)
    return MODELS.build(dict(type='kpu_mm.ViTBackbone', sentinel=str(source), **kwargs))


@pytest.mark.parametrize('family', FAMILIES)
def test_untrained_it_is_its_teacher(family, request):
    source = request.getfixturevalue(family)
    backbone = build(source, out_type='features', frozen='none').train()
    teacher = DINOTeacher(str(source))
    p = teacher.size_divisor
    images = torch.randint(256, (2, 3, 4 * p, 6 * p)).byte()
    mask = torch.ones(2, 4 * p, 6 * p, dtype=torch.bool)
    mask[1, 2 * p :] = False
    got = backbone.extract(backbone.normalise(images, mask))
    expected = teacher(images, mask)
    assert backbone.strides == teacher.strides
    assert (backbone.embed_dims,) == teacher.channels
    torch.testing.assert_close(got.summary, expected.summary, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.maps[0], expected.maps[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('family', FAMILIES)
def test_features_of_several_blocks(family, request):
    source = request.getfixturevalue(family)
    backbone = build(source, blocks=(1, 3, 4), out_type='features').double()
    model = AutoModel.from_pretrained(source).eval().double()
    images = torch.randn(2, 3, 56, 42, dtype=torch.float64)
    if family == 'dinov3_dir':
        images = torch.randn(2, 3, 64, 48, dtype=torch.float64)
    patch, prefix = backbone.strides[0], backbone.sentinel.num_prefix
    with torch.no_grad():
        out = model(images, output_hidden_states=True)
        got = backbone.extract(images)
    tokens = [out.hidden_states[i] for i in (1, 3)] + [out.last_hidden_state]
    rows, columns = (side // patch for side in images.shape[2:])
    assert backbone.embed_dims == 3 * 48 == got.maps[0].shape[1]
    for i, expected in enumerate(tokens):
        part = slice(48 * i, 48 * (i + 1))
        torch.testing.assert_close(got.summary[:, part], expected[:, 0])
        torch.testing.assert_close(
            got.maps[0][:, part], expected[:, prefix:].mT.reshape(2, 48, rows, columns)
        )


@pytest.mark.parametrize('blocks', [(), (1, 3), (3, 1, 4), (0, 4), (4, 5)])
def test_refuses_blocks(dinov2_dir, blocks):
    with pytest.raises(ValueError, match='name rising blocks'):
        build(dinov2_dir, blocks=blocks)


@pytest.mark.parametrize('size', [(64, 64), (61, 90), (33, 47)])
def test_pyramid_sizes(dinov2_dir, size):
    backbone = build(dinov2_dir)
    maps = backbone(torch.randn(2, 3, *size))
    assert backbone.out_channels == (48,) * 4
    for m, stride in zip(maps, (4, 8, 16, 32), strict=True):
        assert m.shape == (2, 48, *(-(-side // stride) for side in size))


@pytest.mark.parametrize('frozen', ['sentinel', 'none'])
@pytest.mark.parametrize(
    ('out_type', 'channels'),
    [('pyramid', (48, 48)), ('summary', (48,)), ('summary_spatial', (96,)), ('features', (48,))],
)
def test_all_that_is_trained_gets_gradients(dinov2_dir, frozen, out_type, channels):
    backbone = build(dinov2_dir, out_type=out_type, frozen=frozen, out_indices=(1, 3))
    outs = backbone(torch.randn(1, 3, 56, 56))
    assert backbone.out_channels == channels
    if out_type == 'features':
        outs = (outs.summary, *outs.maps)
    else:
        assert tuple(out.shape[1] for out in outs) == channels
    loss = sum(out.square().sum() for out in outs)
    trained = {n for n, p in backbone.named_parameters() if p.requires_grad}
    assert any(n.startswith('sentinel.') for n in trained) == (frozen == 'none')
    assert bool(trained) == loss.requires_grad
    if trained:
        loss.backward()
    for name, p in backbone.named_parameters():
        assert (p.grad is not None) == (name in trained), name


def test_summary_and_mean_of_the_map(dinov2_dir):
    backbone = build(dinov2_dir, out_type='summary_spatial')
    images = torch.randn(2, 3, 56, 70)
    summary, (m,), _ = backbone.extract(images)
    (got,) = backbone(images)
    torch.testing.assert_close(got, torch.cat([summary, m.mean((2, 3))], 1))


def test_checkpoints_hold_a_trained_vit(dinov2_dir, tmp_path):
    distiller = KPUDistiller(
        student=dict(type='kpu_mm.ViTBackbone', sentinel=str(dinov2_dir), frozen='none'),
        teachers=dict(dino=dict(type='kpu_mm.DINOTeacher', source=str(dinov2_dir))),
        terms=dict(s2t=1.0),
    )
    for p in distiller.student.parameters():
        p.data += 0.1 * torch.randn_like(p)
    path = tmp_path / 'iter_1.pth'
    torch.save(dict(state_dict=distiller.state_dict()), path)
    backbone = build(dinov2_dir, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    backbone.init_weights()
    trained = distiller.student.sentinel.state_dict()
    for name, value in trained.items():
        assert torch.equal(backbone.sentinel.state_dict()[name], value), name
    # frozen now, but not the source's: a detector's checkpoint needs them
    assert {f'sentinel.{name}' for name in trained} < set(backbone.state_dict())
    untouched = build(dinov2_dir).state_dict()
    assert not any(name.startswith('sentinel.') for name in untouched)


def test_frozen_takes_two_values(dinov2_dir):
    with pytest.raises(ValueError, match="frozen='all'"):
        build(dinov2_dir, frozen='all')


def test_layer_depth(dinov2_dir):
    backbone = build(dinov2_dir)
    depths = {
        n: backbone.get_layer_depth(f'backbone.{n}', 'backbone.')
        for n, _ in backbone.named_parameters()
    }
    assert depths['sentinel.model.embeddings.cls_token'] == (0, 6)
    assert depths['sentinel.model.encoder.layer.3.norm1.weight'] == (4, 6)
    assert depths['levels.0.layers.0.weight'] == (5, 6)
