import pytest
import timm
import torch
from safetensors.torch import save_file

from kpu_mm.models.teachers import TimmTeacher


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A function: name of a timm model -> file of its spread weights."""
    folder = tmp_path_factory.mktemp('timm')

    def save(name):
        torch.manual_seed(0)
        model = timm.create_model(name).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
        path = folder / f'{name}.safetensors'
        save_file(model.state_dict(), path)
        return str(path), model

    return save


@torch.no_grad()
def test_equals_a_vit(saved):
    path, model = saved('test_vit')
    teacher = TimmTeacher('test_vit', path)
    assert teacher.resolution == (160, 160)
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    features = teacher(images)
    x = teacher.prepare(images)[0]
    tokens = model.forward_features(x)
    expected = tokens[:, model.num_prefix_tokens :]
    ours = features.maps[0].flatten(2).transpose(1, 2)
    assert torch.equal(ours, expected)
    summary = model.forward_head(tokens, pre_logits=True)
    assert torch.equal(features.summary, summary)
    assert teacher.summary_channels == 64
    assert teacher.channels == (64,)
    assert teacher.strides == (16,)
    mean = model.pretrained_cfg['mean']
    assert torch.equal(teacher.mean.flatten(), torch.tensor(mean))


@torch.no_grad()
def test_summary_may_be_left_out(saved):
    path, _ = saved('test_vit')
    with_summary, without = (TimmTeacher('test_vit', path, summary=s) for s in (True, False))
    images = torch.rand(1, 3, 160, 160) * 255
    features = without(images)
    assert features.summary is None
    assert without.summary_channels is None
    assert torch.equal(features.maps[0], with_summary(images).maps[0])


@torch.no_grad()
def test_stages_of_a_convnet(saved):
    path, model = saved('test_resnet')
    teacher = TimmTeacher('test_resnet', path, indices=[1, 2, 3, 4])
    assert teacher.resolution is None
    assert teacher.strides == (4, 8, 16, 32)
    images = torch.rand(2, 3, 64, 96) * 255
    features = teacher(images)
    x = teacher.prepare(images)[0]
    assert torch.equal(features.maps[-1], model.forward_features(x))
    assert [m.shape[1] for m in features.maps] == list(teacher.channels)
    pooled = features.maps[-1].mean((2, 3))
    assert torch.allclose(features.summary, pooled, atol=1e-5)


@torch.no_grad()
def test_another_resolution(saved):
    path, _ = saved('test_vit')
    teacher = TimmTeacher('test_vit', path, resolution=(96, 128))
    assert teacher(torch.rand(1, 3, 50, 50)).maps[0].shape[2:] == (6, 8)


@torch.no_grad()
def test_another_resolution_of_a_convnet(saved):
    path, model = saved('test_resnet')
    teacher = TimmTeacher('test_resnet', path, resolution=(96, 128))
    images = torch.randint(0, 256, (2, 3, 50, 50), dtype=torch.uint8)
    x, _ = teacher.prepare(images)
    assert x.shape == (2, 3, 96, 128)
    assert torch.equal(teacher(images).maps[0], model.forward_features(x))


def test_keeps_no_second_copy_of_the_weights(saved):
    teacher = TimmTeacher('test_vit', saved('test_vit')[0])
    assert 'state_dict' not in teacher.model.pretrained_cfg


def test_never_random(saved, tmp_path):
    path, model = saved('test_vit')
    for name in ('vit_tiny_patch16_224.no_such_tag', 'vit_tiny_patch16_224'):
        with pytest.raises(ValueError, match='random weights: name one'):
            TimmTeacher(name)
    with pytest.raises(ValueError, match="no model 'vit_z'"):
        TimmTeacher('vit_z')
    with pytest.raises(RuntimeError, match='does not fit timm'):
        TimmTeacher('test_vit2', path)
    state = model.state_dict()
    del state['blocks.0.attn.qkv.weight']
    save_file(state, tmp_path / 'less.safetensors')
    with pytest.raises(RuntimeError, match=r'blocks\.0\.attn\.qkv'):
        TimmTeacher('test_vit', str(tmp_path / 'less.safetensors'))


def test_unreachable_hub_is_one_quick_sentence(monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(FileNotFoundError, match='HF_HUB_OFFLINE') as info:
        TimmTeacher('vit_base_patch14_dinov2.lvd142m')
    assert '\n' not in str(info.value)


@torch.no_grad()
def test_any_size_of_a_vit(saved):
    path, model = saved('test_vit')
    teacher = TimmTeacher('test_vit', path, options=dict(dynamic_img_size=True))
    images = torch.randint(0, 256, (1, 3, 96, 128), dtype=torch.uint8)
    assert teacher(images).maps[0].shape[2:] == (6, 8)
    # at its own size nothing changes
    images = torch.randint(0, 256, (1, 3, 160, 160), dtype=torch.uint8)
    tokens = model.forward_features(teacher.prepare(images)[0])
    summary = model.forward_head(tokens, pre_logits=True)
    torch.testing.assert_close(teacher(images).summary, summary)


@torch.no_grad()
def test_radio_checkpoint(tmp_path):
    """Names and shapes of RADIO-v2.5's files, without LayerScale."""
    name = 'naflexvit_base_patch16_radio_v3'
    options = dict(init_values=0, depth=2, embed_dim=48, num_heads=4)
    torch.manual_seed(0)
    model = timm.create_model(name, **options).eval()
    own = model.state_dict()
    patches = own.pop('embeds.proj.weight').unflatten(1, (16, 16, 3))
    state = {
        # RADIO's patches are channel by channel, NaFlexViT's pixel by pixel
        'radio_model.model.patch_generator.embedder.weight': patches.permute(0, 3, 1, 2).flatten(1),
        'radio_model.model.patch_generator.pos_embed': own.pop('embeds.pos_embed').flatten(1, 2),
        'radio_model.model.patch_generator.cls_token.token': torch.cat(
            [own.pop('embeds.cls_token')[0], own.pop('embeds.reg_token')[0]]
        ),
        'radio_model.input_conditioner.norm_mean': torch.zeros(3, 1, 1),
        'radio_model.summary_idxs': torch.arange(3),
    }
    assert not own.pop('embeds.proj.bias').any()
    state.update({f'radio_model.model.{k}': v for k, v in own.items()})
    path = tmp_path / 'model.safetensors'
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    teacher = TimmTeacher(name, str(path), options=options)
    assert teacher.strides == (16,)
    images = torch.rand(1, 3, 64, 96) * 255
    features = teacher(images)
    tokens = model.forward_features(teacher.prepare(images)[0])
    # eight tokens before the patches; the first is CLIP's summary
    assert tokens.shape[1] == 8 + 4 * 6
    assert torch.equal(features.summary, tokens[:, 0])
    assert torch.equal(features.maps[0].flatten(2).transpose(1, 2), tokens[:, 8:])
    del state['radio_model.model.blocks.1.mlp.fc2.bias']
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    with pytest.raises(RuntimeError, match=r'blocks\.1\.mlp\.fc2\.bias'):
        TimmTeacher(name, str(path), options=options)


@pytest.mark.parametrize(
    'tag', ['vit_base_patch16_clip_224.openai', 'vit_huge_patch14_clip_224.dfn5b']
)
def test_weights_of_quick_gelu_need_their_own_architecture(tag):
    own = tag.replace('_clip_', '_clip_quickgelu_')
    with pytest.raises(ValueError, match=f"weights of QuickGELU; name '{own}'"):
        TimmTeacher(tag)
    act = (
        timm.create_model(own.partition('.')[0], img_size=32, depth=1, device='meta')
        .blocks[0]
        .mlp.act
    )
    assert type(act).__name__ == 'QuickGELU'
