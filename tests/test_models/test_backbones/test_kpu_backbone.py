import copy

import pytest
import torch
from mmengine.runner.checkpoint import load_checkpoint
from transformers import Dinov2Config, Dinov2Model

from kpu_mm.models import KPUBackbone
from kpu_mm.registry import MODELS
from tests.references.vit_adapter import vit_adapter

TINY = dict(
    model_type='dinov2',
    hidden_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    image_size=56,
    patch_size=14,
)
DINOV2_BASE = dict(
    model_type='dinov2',
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    image_size=518,
    patch_size=14,
)


def build(**kwargs):
    torch.manual_seed(0)
    cfg = dict(type='kpu_mm.KPUBackbone', sentinel=dict(TINY), inplanes=8)
    return MODELS.build({**cfg, **kwargs})


def randomise(module):
    """No zero gammas, offsets or biases that would hide an error."""
    for p in module.parameters():
        p.data += 0.1 * torch.randn_like(p)


@pytest.mark.slow
def test_parameter_counts_of_vit_b():
    backbone = KPUBackbone(sentinel=DINOV2_BASE)
    trained = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert trained == 13_680_608
    assert sum(p.numel() for p in backbone.parameters()) == 100_261_088


def test_untrained_summary_is_dinov2s(tmp_path):
    torch.manual_seed(1)
    vit = Dinov2Model(Dinov2Config(**TINY)).eval()
    randomise(vit)
    vit.save_pretrained(tmp_path)
    backbone = build(sentinel=str(tmp_path)).eval()
    images = torch.randn(2, 3, 70, 42)
    with torch.no_grad():
        expected = vit(images).last_hidden_state[:, 0]
        assert torch.equal(backbone.extract(images).summary, expected)
        # another size: both see the image resized to 70 x 56
        images = torch.randn(1, 3, 75, 50)
        resized = torch.nn.functional.interpolate(images, (70, 56), mode='bilinear')
        expected = vit(resized).last_hidden_state[:, 0]
        assert torch.equal(backbone.extract(images).summary, expected)


@pytest.mark.parametrize('size', [(56, 70), (98, 42)])
def test_agrees_with_the_equations(size):
    backbone = build().double()
    backbone.interactions[0].injector.gamma.data.fill_(0.3)
    randomise(backbone.requires_grad_(True))
    backbone.sentinel.requires_grad_(False)
    vit = copy.deepcopy(backbone.sentinel.model)
    weights = {
        k: p.detach().clone().requires_grad_()
        for k, p in backbone.named_parameters()
        if not k.startswith('sentinel')
    }
    torch.manual_seed(2)
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    backbone.train()
    got = backbone.extract(images)
    summary, maps = vit_adapter(images, vit, weights, 4, 4, 4)
    torch.testing.assert_close(got.summary, summary, rtol=1e-5, atol=1e-8)
    for a, b in zip(got.maps, maps, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)

    probes = [torch.randn_like(m) for m in (summary, *maps)]
    for outs in ((got.summary, *got.maps), (summary, *maps)):
        sum((o * p).sum() for o, p in zip(outs, probes, strict=True)).backward()
    for name, p in backbone.named_parameters():
        if not name.startswith('sentinel'):
            torch.testing.assert_close(p.grad, weights[name].grad, rtol=1e-5, atol=1e-8, msg=name)


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (36, 100), (56, 56), (65, 39)])
def test_map_sizes(size):
    with torch.no_grad():
        maps = build()(torch.randn(2, 3, *size))
    for m, stride in zip(maps, (4, 8, 16, 32), strict=True):
        expected = tuple(-(-side // stride) for side in size)
        assert m.shape == (2, 48, *expected)


def test_too_small_image():
    with pytest.raises(ValueError, match='31 x 40'):
        build()(torch.randn(1, 3, 31, 40))


@pytest.mark.parametrize(
    'family',
    [
        dict(TINY),
        dict(TINY, model_type='dinov2_with_registers', num_register_tokens=2),
        dict(
            TINY,
            model_type='dinov3_vit',
            intermediate_size=64,
            patch_size=16,
            num_register_tokens=4,
        ),
    ],
    ids=lambda f: f['model_type'],
)
def test_families(family):
    backbone = build(sentinel=family)
    vit = backbone.sentinel.model
    size = 4 * backbone.sentinel.patch_size
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        summary = backbone.eval().extract(images).summary
        assert torch.equal(summary, vit(images).last_hidden_state[:, 0])


def test_frozen_and_trained_parts():
    backbone = build()
    randomise(backbone)  # gamma 0 would stop the gradient of injectors
    backbone.train()
    assert not backbone.sentinel.training
    assert not any(m.training for m in backbone.sentinel.modules())
    assert backbone.prior.training
    maps = backbone.extract(torch.randn(2, 3, 56, 56))
    sum(m.square().sum() for m in (maps.summary, *maps.maps)).backward()
    for name, p in backbone.named_parameters():
        if name.startswith('sentinel.'):
            assert not p.requires_grad and p.grad is None, name
        else:
            assert p.grad is not None and p.grad.abs().max() > 0, name


def test_frozen_all_and_none():
    frozen = build(frozen='all')
    before = copy.deepcopy(frozen.state_dict())
    frozen.train()
    frozen(torch.randn(2, 3, 56, 56))
    assert not any(p.requires_grad for p in frozen.parameters())
    for key, value in frozen.state_dict().items():
        assert torch.equal(value, before[key]), key
    trained = build(frozen='none')
    trained.extract(torch.randn(2, 3, 56, 56)).summary.sum().backward()
    grads = {n for n, p in trained.named_parameters() if p.grad is not None}
    assert 'sentinel.model.encoder.layer.0.norm1.weight' in grads
    assert any(k.startswith('sentinel.') for k in trained.state_dict())


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(out_indices=(1, 2, 3)),
        dict(out_indices=[0]),
        dict(out_type='summary'),
        dict(out_type='summary_spatial'),
        dict(frozen='none'),
        dict(frozen='none', out_type='summary_spatial'),
    ],
    ids=str,
)
def test_every_trained_parameter_serves_the_output(kwargs):
    backbone = build(**kwargs)
    outs = backbone(torch.randn(2, 3, 56, 56))
    sum(o.sum() for o in outs).backward()
    for name, p in backbone.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name


def test_output_types():
    images = torch.randn(2, 3, 56, 70)
    summary, maps, _ = build().eval().extract(images)
    backbone = build(out_type='summary').eval()
    assert backbone.out_channels == (48,)
    assert torch.equal(backbone(images)[0], summary)
    backbone = build(out_type='summary_spatial').eval()
    assert backbone.out_channels == (96,)
    expected = torch.cat([summary, maps[2].flatten(2).mean(2)], 1)
    torch.testing.assert_close(backbone(images)[0], expected)
    assert build(out_indices=(1, 3)).out_channels == (48, 48)


def test_layer_depth():
    backbone = build()
    depths = {
        name: backbone.get_layer_depth(f'backbone.{name}', 'backbone.')
        for name, _ in backbone.named_parameters()
    }
    assert {last for _, last in depths.values()} == {6}
    for name, (depth, _) in depths.items():
        if name.startswith('sentinel.model.embeddings.'):
            assert depth == 0, name
        elif name.startswith('sentinel.model.encoder.layer.'):
            assert depth == 1 + int(name.split('.')[4]), name
        else:
            assert depth == 5, name


def test_checkpointing_changes_nothing():
    plain = build(drop_path_rate=0.3)
    randomise(plain)
    cheap = copy.deepcopy(plain)
    cheap.with_cp = True
    images = torch.randn(2, 3, 56, 70)
    grads = []
    for backbone in (plain, cheap):
        torch.manual_seed(3)
        features = backbone.train().extract(images)
        sum(m.square().sum() for m in features.maps).backward()
        grads.append([p.grad for p in backbone.parameters()])
    for a, b in zip(*grads, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


def test_norm_cfg():
    backbone = build(norm_cfg=dict(type='GN', num_groups=4))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in backbone.modules())
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together = backbone(images)
        alone = backbone(images[1:2])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:2], b, rtol=1e-4, atol=1e-5)


def test_norm_eval():
    torch.manual_seed(0)
    backbone, usual = build(norm_eval=True), build()
    usual.load_state_dict(backbone.state_dict())
    images = torch.randn(3, 3, 64, 64)
    backbone.train()
    usual.train()
    assert backbone.training and backbone.interactions[0].training
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    maps = backbone(images)
    for a, b, c in zip(maps, backbone.eval()(images), usual(images), strict=True):
        torch.testing.assert_close(a, b)
        assert not torch.allclose(a, c, atol=1e-2)
    after = backbone.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)
    # weights of the norm layers are still trained
    sum(m.sum() for m in maps).backward()
    assert all(norm.weight.grad is not None for norm in backbone.norms)


def test_normalise_leaves_padding_at_zero():
    backbone = build()
    images = torch.full((1, 3, 40, 40), 255, dtype=torch.uint8)
    mask = torch.ones(1, 40, 40, dtype=torch.bool)
    mask[:, 30:] = False
    out = backbone.normalise(images, mask)
    assert out[:, :, 30:].abs().max() == 0
    torch.testing.assert_close(
        out[0, :, 0, 0], torch.tensor([2.2489, 2.4286, 2.6400]), rtol=0, atol=1e-4
    )


def test_checkpoint_holds_adapter_and_checksum(tmp_path):
    backbone = build()
    randomise(backbone)
    state = backbone.state_dict()
    assert not any(k.startswith('sentinel.') for k in state)
    other = build()
    other.sentinel.load_state_dict(backbone.sentinel.state_dict())
    other._checksum = backbone._checksum = other.sentinel.checksum()
    state = backbone.state_dict()
    missing, unexpected = other.load_state_dict(state)
    assert not missing and not unexpected
    images = torch.randn(1, 3, 48, 48)
    assert torch.equal(
        backbone.eval().extract(images).maps[0], other.eval().extract(images).maps[0]
    )


def test_other_sentinel_is_refused(tmp_path):
    state = build().state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    other = build()
    other.sentinel.model.layernorm.weight.data += 1
    other._checksum = other.sentinel.checksum()
    with pytest.raises(RuntimeError, match='trained with sentinel'):
        other.load_state_dict(state)
    with pytest.raises(RuntimeError, match='trained with sentinel'):
        load_checkpoint(other, str(tmp_path / 'a.pth'))


def test_a_trained_sentinel_starts_from_that_of_the_checkpoint(tmp_path):
    state = build().state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    build(frozen='none', init_cfg=init_cfg).init_weights()
    other = build(frozen='none', init_cfg=init_cfg)
    other.sentinel.model.layernorm.weight.data += 1
    with pytest.raises(RuntimeError, match='trained with sentinel'):
        other.init_weights()


def test_trained_sentinel_stays_in_later_checkpoints():
    trained = build(frozen='none')
    randomise(trained)
    frozen = build()
    source = frozen.state_dict()
    frozen.load_state_dict(trained.state_dict())
    again = build()
    again.load_state_dict(frozen.state_dict())
    for name, p in trained.sentinel.named_parameters():
        assert torch.equal(p, again.sentinel.get_parameter(name)), name
    with pytest.raises(RuntimeError, match='trained with sentinel'):
        again.load_state_dict(source)


@pytest.mark.parametrize('prefix', ['student.', 'backbone.', ''])
def test_pretrained_init(tmp_path, prefix):
    source = build()
    source.up.weight.data.fill_(0.5)
    state = {prefix + k: v for k, v in source.state_dict().items()}
    if prefix:
        state['projectors.s2t.clip.summary.0.bias'] = torch.zeros(1)
    torch.save(dict(state_dict=state), tmp_path / 'iter_1.pth')
    given = dict(type='Pretrained', checkpoint=str(tmp_path / 'iter_1.pth'))
    for init_cfg in (given, [given]):
        backbone = build(init_cfg=init_cfg)
        backbone.init_weights()
        assert (backbone.up.weight == 0.5).all()
    with pytest.raises(ValueError, match=r"takes dict\(type='Pretrained', "):
        build(init_cfg=[given, given]).init_weights()


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(frozen='vit'), "frozen='vit'"),
        (dict(out_type='cls'), "out_type='cls'"),
        (dict(out_indices=(4,)), 'out_indices'),
        (dict(num_interactions=5), 'num_interactions=5'),
        (dict(num_heads=5), '5 heads do not divide'),
        (dict(sentinel=dict(model_type='swin')), "'swin' model"),
    ],
)
def test_bad_options(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_a_student_trains_all_of_itself(dinov2_dir):
    backbone = KPUBackbone(str(dinov2_dir), frozen='none', inplanes=8, out_type='features')
    summary, maps, _ = backbone(torch.rand(2, 3, 56, 56))
    (summary.sum() + sum(m.pow(2).sum() for m in maps)).backward()
    without = [n for n, p in backbone.named_parameters() if p.grad is None]
    assert without == ['sentinel.model.embeddings.mask_token']
