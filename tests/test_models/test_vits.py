"""Each family of ViTs against its library's own model."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from transformers import AutoConfig, AutoModel

from kpu_mm.models.backbones import KPUBackbone, ViTBackbone
from kpu_mm.models.vits import build_vit
from kpu_mm.weights import timm_models
from tests.small_vits import SMALL, TIMM, TRANSFORMERS, small_vit


def randomise(model):
    """Weights that start at zero or one hide what is not computed."""
    for p in model.parameters():
        p.data.add_(torch.randn_like(p) * 0.1)


def run_in_spans(vit, images):
    tokens, grid, options = vit.embed(images)
    for start, stop in ((0, 1), (1, 3)):
        tokens = vit.run(tokens, options, start, stop)
    return tokens, grid


@pytest.mark.parametrize('kind', TRANSFORMERS)
@torch.no_grad()
def test_vits_of_transformers(kind):
    vit = build_vit(small_vit(kind))
    randomise(vit)
    images = torch.randn(2, 3, 42, 70)
    tokens, grid = run_in_spans(vit, images)
    # only some have positions that must be asked to follow the size
    asks = {} if kind.startswith('dino') else dict(interpolate_pos_encoding=True)
    expected = vit.model(images, **asks)
    hidden, pooled = expected.last_hidden_state, expected.pooler_output
    assert grid == (3, 5)
    assert torch.equal(vit.norm(tokens), hidden)
    summary, m = vit(images)
    # ViT's and DeiT's poolers are part of their classifiers
    assert torch.equal(summary, hidden[:, 0] if pooled is None else pooled)
    assert torch.equal(m.flatten(2).mT, hidden[:, vit.num_prefix :])
    assert hidden.shape[1] == vit.num_prefix + 15


@pytest.mark.parametrize('family', TIMM)
@torch.no_grad()
def test_vits_of_timm(family):
    config = small_vit(family)
    vit = build_vit(config)
    randomise(vit)
    name = config['architecture']
    args = dict(config['model_args'], num_classes=0)
    patch = vit.patch_size
    size = (3 * patch, 5 * patch)
    if family == 'BEiT':
        # the positions of one size
        size = (224, 224)
    elif not name.startswith('naflex'):
        args['dynamic_img_size'] = True
    model = timm.create_model(name, **args).eval()
    model.load_state_dict(vit.model.state_dict())
    images = torch.randn(2, 3, *size)
    tokens, grid = run_in_spans(vit, images)
    expected = model.forward_features(images)
    assert grid == (size[0] // patch, size[1] // patch)
    assert torch.equal(vit.norm(tokens), expected)
    summary, m = vit(images)
    assert torch.equal(summary, model(images))
    _, (own,) = model.forward_intermediates(images, indices=1, norm=True)
    assert torch.equal(m, own)
    assert vit.class_token == (family not in ('SigLIP 2', 'registers, mean', 'SigLIP 2, NaFlex'))
    assert [vit.mean, vit.std] == [tuple(model.pretrained_cfg[key]) for key in ('mean', 'std')]


@pytest.mark.parametrize('family', [*TRANSFORMERS, *TIMM])
def test_every_weight_that_is_trained_gets_a_gradient(family):
    vit = build_vit(small_vit(family))
    summary, m = vit(torch.randn(2, 3, 4 * vit.patch_size, 4 * vit.patch_size))
    (summary.square().sum() + m.square().sum()).backward()
    idle = [n for n, p in vit.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    # layer-wise learning rates: each layer has a depth of its own
    depths = {vit.depth_of(name) for name, _ in vit.named_parameters()}
    assert depths | {4} == {0, 1, 2, 3, 4}  # RADIO has no final norm
    of_layers = {n: vit.depth_of(n) for n, m in vit.named_modules() if m in set(vit.layers)}
    assert list(of_layers.values()) == [1, 2, 3]
    assert vit.depth_of(f'{list(of_layers)[1]}.weight') == 2


@pytest.mark.parametrize('family', ['siglip_vision_model', 'clip_vision_model', *TIMM])
def test_a_saved_vit_is_the_same(family, tmp_path):
    vit = build_vit(small_vit(family))
    randomise(vit)
    vit.save(tmp_path / 'vit')
    again = build_vit(str(tmp_path / 'vit'))
    images = torch.randn(1, 3, 2 * vit.patch_size, 3 * vit.patch_size)
    with torch.no_grad():
        for one, other in zip(vit(images), again(images), strict=True):
            # weights in a file have other places in memory, to which the
            # sums of torch's attention are sensitive
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert (again.mean, again.std) == (vit.mean, vit.std)
    assert again.checksum() == vit.checksum()


@pytest.mark.parametrize('own', [True, False])
def test_a_dino_of_its_own_colours(own, tmp_path):
    # those of DINOv3 for satellite images
    satellite = (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)
    vit = build_vit(small_vit('dinov3_vit'))
    imagenet = vit.mean, vit.std
    vit.save(tmp_path / 'vit')
    if own:
        values = dict(zip(('image_mean', 'image_std'), satellite, strict=True))
        (tmp_path / 'vit' / 'preprocessor_config.json').write_text(json.dumps(values))
    vit = build_vit(str(tmp_path / 'vit'))
    assert (vit.mean, vit.std) == (satellite if own else imagenet)
    # An export has the configuration alone.
    vit.save(tmp_path / 'again')
    again = build_vit(str(tmp_path / 'again'))
    assert (again.mean, again.std) == (vit.mean, vit.std)
    assert ('image_mean' in (tmp_path / 'again' / 'config.json').read_text()) == own


@pytest.mark.parametrize('safe', [True, False])
def test_a_folder_that_timm_wrote(safe, tmp_path):
    model = timm.create_model('vit_tiny_patch16_224', depth=2, num_classes=7)
    save_for_hf(model, tmp_path, safe_serialization=safe, model_args=dict(depth=2))
    vit = build_vit(str(tmp_path))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        features = model.eval().forward_features(images)
        assert torch.equal(vit(images)[0], model.forward_head(features, pre_logits=True))


@pytest.mark.parametrize('family', [*TRANSFORMERS, *TIMM])
@torch.no_grad()
def test_a_student_sees_the_sentinels_own_colours(family):
    backbone = KPUBackbone(small_vit(family), num_interactions=2, inplanes=4).eval()
    vit = backbone.sentinel
    randomise(vit)
    side = vit.image_size[0] if vit.image_size else 4 * vit.patch_size
    raw = torch.randint(256, (2, 3, side, side), dtype=torch.uint8)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (vit.mean, vit.std))
    # The adapter's injectors start at zero.
    expected, _ = vit((raw / 255 - mean) / std)
    torch.testing.assert_close(backbone.encode(raw).summary, expected, rtol=1e-4, atol=1e-4)
    assert [m.shape[-1] for m in backbone.encode(raw).maps] == [
        -(-side // stride) for stride in (4, 8, 16, 32)
    ]


def test_a_model_of_timms_hub(tmp_path, monkeypatch):
    model = timm.create_model('test_vit').eval()
    save_file(model.state_dict(), tmp_path / 'model.safetensors')
    asked = []

    def fetch(repo, *names):
        asked.append(repo)
        return tmp_path / names[0]

    monkeypatch.setattr(timm_models, 'fetch_file', fetch)
    vit = build_vit('timm:test_vit.r160_in1k')
    assert (asked, vit.name) == (['timm/test_vit.r160_in1k'], 'timm:test_vit.r160_in1k')
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
        assert torch.equal(vit(images)[0], expected)
        # positions follow the size of the images
        assert vit(images[..., :112])[1].shape[2:] == (10, 7)


@pytest.mark.parametrize('kind', ['clip', 'siglip'])
def test_a_folder_of_two_towers(kind, tmp_path):
    text = dict(SMALL, vocab_size=10, max_position_embeddings=8)
    config = AutoConfig.for_model(kind, vision_config=SMALL, text_config=text)
    model = AutoModel.from_config(config).eval()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='how images are normalised'):
        build_vit(str(tmp_path))
    (tmp_path / 'preprocessor_config.json').write_text(
        '{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}'
    )
    vit = build_vit(str(tmp_path))
    assert (vit.mean, vit.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    images = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        expected = model.vision_model(images).pooler_output
        torch.testing.assert_close(vit(images)[0], expected, rtol=0, atol=1e-6)


def test_a_pooling_head_is_a_choice():
    vit = build_vit(dict(SMALL, model_type='siglip_vision_model', vision_use_head=False))
    summary, m = vit(torch.randn(2, 3, 28, 42))
    torch.testing.assert_close(summary, m.mean((2, 3)))


def test_what_a_vit_backbone_refuses():
    with pytest.raises(ValueError, match='no fixed stride'):
        ViTBackbone(small_vit('BEiT'))
    with pytest.raises(ValueError, match='no class token'):
        ViTBackbone(small_vit('SigLIP 2'), blocks=(1, 3))


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('timm:swin_base_patch4_window7_224', 'no plain ViT'),
        ('timm:samvit_base_patch16', 'no plain ViT'),
        ('timm:vit_relpos_base_patch16_224', 'no plain ViT'),
        ('timm:no_such_vit', 'timm has no model'),
        (dict(architecture='resnet50'), 'no plain ViT'),
        (dict(architecture=3), 'architecture must be a name'),
        (dict(architecture='beit_base_patch16_224', model_args=dict(pretrained=True)), 'load w'),
        (dict(model_type='swin'), "a 'swin' model"),
        (dict(model_type=['dinov2']), 'no plain ViT'),
    ],
)
def test_refusals(source, message):
    with pytest.raises(ValueError, match=message):
        build_vit(source)


def test_checksum_sees_every_weight_that_is_used():
    vit = build_vit(small_vit('dinov2'))
    before = vit.checksum()
    vit.model.embeddings.mask_token.data += 1
    assert vit.checksum() == before
    vit.model.encoder.layer[1].mlp.fc1.bias.data[3] += 1
    assert vit.checksum() != before


def test_always_in_eval_mode():
    vit = build_vit(small_vit('dinov2')).train()
    assert not any(m.training for m in vit.modules())
