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
