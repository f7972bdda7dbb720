import pytest
import torch
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import MODELS, DefaultScope

from kpu_mm.models.teachers import MMTeacher

MODEL = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
    neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=4),
)


@pytest.fixture
def config(tmp_path):
    """A function that writes a config file."""

    def write(drop=(), **preprocessor):
        images = dict(MODEL['data_preprocessor'], **preprocessor)
        model = dict(MODEL, data_preprocessor=images)
        model = {k: v for k, v in model.items() if k not in drop}
        path = tmp_path / 'model.py'
        path.write_text(f'default_scope = "mmseg"\nmodel = {model!r}\n')
        return str(path)

    return write


@pytest.fixture(scope='module')
def parts():
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        backbone = MODELS.build(MODEL['backbone'])
        neck = MODELS.build(MODEL['neck'])
    for part in (backbone, neck):
        part.eval()  # gives None for some of them
    return backbone, neck


@pytest.fixture(scope='module')
def checkpoint(parts, tmp_path_factory):
    path = tmp_path_factory.mktemp('mm') / 'model.pth'
    state = {
        f'{name}.{key}': value
        for name, part in zip(('backbone', 'neck'), parts, strict=True)
        for key, value in part.state_dict().items()
    }
    torch.save(dict(meta=dict(epoch=3), state_dict=state), path)
    return str(path)


@torch.no_grad()
@pytest.mark.parametrize('rgb', [True, False])
def test_equals_the_backbone(parts, config, checkpoint, rgb):
    mean, std = [100.0, 110.0, 120.0], [50.0, 55.0, 60.0]
    teacher = MMTeacher(config(mean=mean, std=std, bgr_to_rgb=rgb), checkpoint)
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    # the same pixels as the library's loader and preprocessor make them
    preprocessor = ImgDataPreprocessor(mean, std, bgr_to_rgb=rgb)
    bgr = [image.flip(0) for image in images]
    x = preprocessor(dict(inputs=bgr))['inputs']
    for ours, theirs in zip(teacher(images).maps, parts[0](x), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    own = teacher.prepare(images)[0]
    expected = parts[0](own if rgb else own.flip(1))
    assert torch.equal(teacher(images).maps[3], expected[3])
    assert teacher.channels == (8, 16, 32, 64)
    assert teacher.strides == (4, 8, 16, 32)
    assert teacher.summary_channels is None


@torch.no_grad()
def test_equals_the_neck(parts, config, checkpoint):
    teacher = MMTeacher(config(), checkpoint, with_neck=True)
    images = torch.rand(1, 3, 64, 64) * 255
    expected = parts[1](parts[0](teacher.prepare(images)[0]))
    for ours, theirs in zip(teacher(images).maps, expected, strict=True):
        assert torch.equal(ours, theirs)
    assert teacher.channels == (8, 8, 8, 8)


def test_frozen_batch_norm_stays(config, checkpoint):
    teacher = MMTeacher(config(), checkpoint).train()
    assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())


def test_config_that_is_not_there(checkpoint):
    with pytest.raises(ValueError, match=r'gone\.py. does not exist'):
        MMTeacher('gone.py', checkpoint)


def test_weights_must_fit(parts, config, tmp_path):
    path = tmp_path / 'broken.pth'
    state = {f'backbone.{k}': v for k, v in parts[0].state_dict().items()}
    del state['backbone.layer1.0.conv1.weight']
    torch.save(dict(state_dict=state), path)
    with pytest.raises(RuntimeError, match=r'layer1\.0\.conv1\.weight'):
        MMTeacher(config(), str(path))
    torch.save(dict(state_dict={'head.weight': torch.ones(1)}), path)
    with pytest.raises(RuntimeError, match='no weights of a backbone'):
        MMTeacher(config(), str(path))


def test_config_must_state_the_normalization(config, checkpoint):
    with pytest.raises(ValueError, match='no mean and std'):
        MMTeacher(config(mean=None, std=None), checkpoint)
    with pytest.raises(ValueError, match='no backbone'):
        MMTeacher(config(drop=['backbone']), checkpoint)
    bare = config(drop=['neck'])
    with pytest.raises(ValueError, match='no neck'):
        MMTeacher(bare, checkpoint, with_neck=True)
