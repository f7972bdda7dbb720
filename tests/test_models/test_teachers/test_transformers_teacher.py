import pytest
import torch
from transformers import (
    ConvNextBackbone,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Backbone,
    Dinov2Model,
    DPTForDepthEstimation,
    Sam2Model,
    SamConfig,
    SamModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from kpu_mm.models.teachers import TransformersTeacher

SMALL = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    image_size=64,
    patch_size=16,
)


@pytest.fixture(scope='module')
def vit_dir(save_model):
    return save_model('vit', lambda: ViTModel(ViTConfig(**SMALL)))


@torch.no_grad()
@pytest.mark.parametrize('summary', ['cls', 'pooler', None])
def test_equals_a_vit(vit_dir, summary):
    teacher = TransformersTeacher(str(vit_dir), summary=summary)
    images = torch.rand(2, 3, 96, 64) * 255
    features = teacher(images)
    model = ViTModel.from_pretrained(vit_dir).requires_grad_(False)
    out = model(teacher.prepare(images)[0], interpolate_pos_encoding=True)
    ours = features.maps[0].flatten(2).transpose(1, 2)
    assert torch.equal(ours, out.last_hidden_state[:, 1:])
    expected = {'cls': out.last_hidden_state[:, 0], 'pooler': out.pooler_output, None: None}[
        summary
    ]
    if summary is None:
        assert features.summary is None
        assert teacher.summary_channels is None
    else:
        assert torch.equal(features.summary, expected)
        assert teacher.summary_channels == 32
    assert teacher.channels == (32,)
    assert teacher.strides == (16,)


def test_unread_pooler_may_miss(save_model):
    config = ViTConfig(**SMALL)
    folder = save_model('vit_cls', lambda: ViTForImageClassification(config))
    assert TransformersTeacher(str(folder), summary='cls').channels == (32,)
    with pytest.raises(RuntimeError, match=r'missing_keys .*pooler'):
        TransformersTeacher(str(folder), summary='pooler')


@torch.no_grad()
def test_model_without_class_token(save_model):
    config = SiglipVisionConfig(**SMALL)
    folder = save_model('siglip_hf', lambda: SiglipVisionModel(config))
    teacher = TransformersTeacher(str(folder), summary='pooler')
    images = torch.rand(1, 3, 64, 64) * 255
    model = SiglipVisionModel.from_pretrained(folder).requires_grad_(False)
    out = model(teacher.prepare(images)[0], interpolate_pos_encoding=True)
    assert torch.equal(teacher(images).summary, out.pooler_output)
    assert teacher(images).maps[0].shape == (1, 32, 4, 4)
    with pytest.raises(ValueError, match='no class token'):
        TransformersTeacher(str(folder), summary='cls')


@torch.no_grad()
def test_equals_a_convnet(save_model):
    config = ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1] * 4)
    folder = save_model('convnext', lambda: ConvNextModel(config))
    teacher = TransformersTeacher(str(folder), summary='pooler')
    images = torch.rand(2, 3, 64, 96) * 255
    model = ConvNextModel.from_pretrained(folder)
    out = model(teacher.prepare(images)[0])
    assert torch.equal(teacher(images).maps[0], out.last_hidden_state)
    assert torch.equal(teacher(images).summary, out.pooler_output)
    assert teacher.channels == (32,)
    assert teacher.strides == (32,)


def test_stages_have_norms_of_their_own(save_model):
    config = ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, out_indices=[1, 2, 3, 4])
    # which the files of a classifier lack: transformers makes them up
    folder = save_model('bare', lambda: ConvNextModel(config))
    with pytest.raises(RuntimeError, match='hidden_states_norms'):
        TransformersTeacher(str(folder), out_indices=(1, 2, 3, 4))
    folder = save_model('stages', lambda: ConvNextBackbone(config))
    stages = TransformersTeacher(str(folder), out_indices=(1, 2, 3, 4))
    assert stages.channels == (8, 16, 24, 32)
    assert stages.strides == (4, 8, 16, 32)


@torch.no_grad()
def test_stages_equal_the_backbone_class(dinov2_dir):
    teacher = TransformersTeacher(str(dinov2_dir), out_indices=[2, 4])
    images = torch.rand(1, 3, 70, 84) * 255
    model = Dinov2Backbone.from_pretrained(dinov2_dir, out_indices=[2, 4]).requires_grad_(False)
    out = model(teacher.prepare(images)[0])
    for ours, theirs in zip(teacher(images).maps, out.feature_maps, strict=True):
        assert torch.equal(ours, theirs)
    last = Dinov2Model.from_pretrained(dinov2_dir).requires_grad_(False)(teacher.prepare(images)[0])
    tokens = teacher(images).maps[1].flatten(2).transpose(1, 2)
    assert torch.equal(tokens, last.last_hidden_state[:, 1:])


@torch.no_grad()
@pytest.mark.parametrize('size', [(64, 64), (96, 160)])
def test_equals_the_image_encoder_of_sam2(sam2_dir, size):
    teacher = TransformersTeacher(str(sam2_dir))
    assert teacher.channels == (32, 32, 32)
    assert teacher.strides == (4, 8, 16)
    assert teacher.summary_channels is None
    assert not hasattr(teacher.model, 'mask_decoder')
    images = torch.rand(2, 3, *size) * 255
    maps = teacher(images).maps
    # the class for single images, which reads the files of the one for videos
    model = Sam2Model.from_pretrained(sam2_dir).requires_grad_(False)
    out = model.vision_encoder(teacher.prepare(images)[0])
    for ours, theirs in zip(maps, out.fpn_hidden_states, strict=True):
        assert torch.equal(ours, theirs)
    assert [m.shape[-2:] for m in maps] == [tuple(side // s for side in size) for s in (4, 8, 16)]


@torch.no_grad()
def test_sam2_takes_whole_windows(sam2_dir):
    teacher = TransformersTeacher(str(sam2_dir))
    assert teacher.size_divisor == 32
    assert teacher(torch.rand(1, 3, 70, 100) * 255).maps[0].shape[-2:] == (16, 24)
    with pytest.raises(ValueError, match='no summary: set summary=None'):
        TransformersTeacher(str(sam2_dir), summary='cls')


@torch.no_grad()
def test_equals_the_encoder_of_a_model_for_depth(dpt_dir):
    teacher = TransformersTeacher(str(dpt_dir))
    images = torch.rand(1, 3, 64, 96) * 255
    model = DPTForDepthEstimation.from_pretrained(dpt_dir)
    tokens = model.dpt(teacher.prepare(images)[0]).last_hidden_state
    assert torch.equal(teacher(images).maps[0].flatten(2).transpose(1, 2), tokens[:, 1:])


@torch.no_grad()
def test_equals_the_image_encoder_of_sam(save_model):
    vision = dict(SMALL, output_channels=24, mlp_dim=64, num_pos_feats=8, global_attn_indexes=[1])
    prompts = dict(hidden_size=24, image_size=64, image_embedding_size=4)
    decoder = dict(hidden_size=24, mlp_dim=32, num_attention_heads=2, num_hidden_layers=1)
    config = SamConfig(vision, prompts, decoder)
    folder = save_model('sam', lambda: SamModel(config))
    teacher = TransformersTeacher(str(folder), resolution=(64, 64))
    images = torch.rand(1, 3, 64, 64) * 255
    model = SamModel.from_pretrained(folder)
    expected = model.get_image_embeddings(teacher.prepare(images)[0])
    assert torch.equal(teacher(images).maps[0], expected)
    assert teacher.strides == (16,)
    with pytest.raises(ValueError, match='set resolution to it'):
        TransformersTeacher(str(folder))


def test_refuses_tokens_that_are_no_grid(save_model):
    config = SwinConfig(image_size=64, embed_dim=16, depths=[1, 1], num_heads=[1, 2])
    folder = save_model('swin', lambda: SwinModel(config))
    with pytest.raises(ValueError, match=r'no grid of .*set out_indices'):
        TransformersTeacher(str(folder))


def test_refuses_what_it_cannot_read(dinov2_dir, grounding_dino_dir):
    with pytest.raises(ValueError, match=r'cannot be read|images and text'):
        TransformersTeacher(str(grounding_dino_dir))
    with pytest.raises(ValueError, match='maps only'):
        TransformersTeacher(str(dinov2_dir), 'cls', out_indices=[1])
    with pytest.raises(ValueError, match="'cls', 'pooler' or None"):
        TransformersTeacher(str(dinov2_dir), summary='mean')
