import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    GroundingDinoForObjectDetection,
    GroundingDinoProcessor,
    MMGroundingDinoForObjectDetection,
)

from kpu_mm.models.teachers import GroundingDINOTeacher
from kpu_mm.models.teachers import grounding_dino_teacher as module


@pytest.fixture(scope='module')
def inputs(grounding_dino_dir):
    """A padded batch of the library's own processor."""
    processor = GroundingDinoProcessor.from_pretrained(grounding_dino_dir)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((96, 144), (96, 84))]
    return processor(
        images=images,
        text=[['a cat', 'a remote control'], ['dog', 'person']],
        return_tensors='pt',
        padding=True,
    )


@pytest.fixture(scope='module')
def raw(inputs):
    """The batch before normalisation, and its mask."""
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    pixels = ((inputs['pixel_values'] * std + mean) * 255).round()
    mask = inputs['pixel_mask'].bool()
    assert not mask.all()
    # padding may hold anything
    return pixels.where(mask[:, None], torch.tensor(77.0)).byte(), mask


@torch.no_grad()
def test_equals_the_backbone(grounding_dino_dir, raw):
    images, mask = raw
    teacher = GroundingDINOTeacher(str(grounding_dino_dir))
    features = teacher(images, mask)
    model = GroundingDinoForObjectDetection.from_pretrained(grounding_dino_dir)
    pixels, _ = teacher.prepare(images, mask)
    expected = model.model.backbone.conv_encoder(pixels, mask)
    assert features.summary is None
    for ours, cells, (theirs, valid) in zip(features.maps, features.masks, expected, strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(cells[:, 0], valid)
        assert not valid.all()
    assert teacher.summary_channels is None
    assert teacher.channels == (32, 64, 128)
    assert teacher.strides == (8, 16, 32)


def test_prepares_as_the_processor(grounding_dino_dir, raw, inputs):
    teacher = GroundingDINOTeacher(str(grounding_dino_dir))
    pixels, _ = teacher.prepare(*raw)
    assert torch.allclose(pixels, inputs['pixel_values'], atol=1e-5)


@torch.no_grad()
def test_own_maps_give_own_boxes(grounding_dino_dir, raw, inputs):
    teacher = GroundingDINOTeacher(str(grounding_dino_dir), with_text=True)
    batch = dict(inputs, pixel_values=teacher.prepare(*raw)[0])
    before = teacher.model(**batch)
    features = teacher(*raw)
    blank = torch.zeros_like(batch['pixel_values'])
    with teacher.inject(features.maps) as detector:
        injected = detector(**dict(batch, pixel_values=blank))
    assert torch.equal(before.logits, injected.logits)
    assert torch.equal(before.pred_boxes, injected.pred_boxes)
    assert before.logits.isfinite().any()
    # other maps give other boxes, and the backbone is back afterwards
    with teacher.inject([m + 1 for m in features.maps]) as detector:
        assert not torch.equal(detector(**batch).logits, before.logits)
    assert torch.equal(teacher.model(**batch).logits, before.logits)


def test_backbone_returns_after_an_error(grounding_dino_dir):
    teacher = GroundingDINOTeacher(str(grounding_dino_dir), with_text=True)
    maps = teacher(torch.rand(1, 3, 64, 64)).maps
    with pytest.raises(KeyError), teacher.inject(maps):
        raise KeyError
    backbone = teacher.model.model.backbone
    assert backbone.conv_encoder is teacher.encoder


def test_injection_needs_text_and_fitting_maps(grounding_dino_dir):
    bare = GroundingDINOTeacher(str(grounding_dino_dir))
    maps = bare(torch.rand(1, 3, 64, 64)).maps
    with pytest.raises(RuntimeError, match='with_text=True'), bare.inject(maps):
        pass
    whole = GroundingDINOTeacher(str(grounding_dino_dir), with_text=True)
    with (
        pytest.raises(ValueError, match=r'maps of \(32, 64, 128\) channels'),
        whole.inject(maps[1:]),
    ):
        pass


def test_keeps_only_the_image_backbone(grounding_dino_dir):
    bare = GroundingDINOTeacher(str(grounding_dino_dir))
    assert all(key.startswith('encoder.') for key in bare.state_dict())
    owner = nn.Sequential(bare).train()
    assert not any(m.training for m in owner[0].modules())
    assert not any(p.requires_grad for p in bare.parameters())


@torch.no_grad()
def test_takes_any_size(grounding_dino_dir):
    teacher = GroundingDINOTeacher(str(grounding_dino_dir))
    maps = teacher(torch.rand(1, 3, 75, 100) * 255).maps
    assert [m.shape[-2:] for m in maps] == [(10, 13), (5, 7), (3, 4)]


@torch.no_grad()
def test_reads_mm_grounding_dino(mm_grounding_dino_dir):
    teacher = GroundingDINOTeacher(str(mm_grounding_dino_dir))
    images = torch.rand(1, 3, 64, 96) * 255
    model = MMGroundingDinoForObjectDetection.from_pretrained(mm_grounding_dino_dir)
    pixels, _ = teacher.prepare(images)
    ones = torch.ones(1, 64, 96)
    expected = model.model.backbone.conv_encoder(pixels, ones)
    for ours, (theirs, _) in zip(teacher(images).maps, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_refuses_tied_box_heads(grounding_dino_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(module, '_TIES_BOX_HEADS', True)
    monkeypatch.setattr(module, 'read_config', lambda _: {'model_type': 'mm-grounding-dino'})
    with pytest.raises(ValueError, match='ties the box heads'):
        GroundingDINOTeacher(str(grounding_dino_dir), with_text=True)


def test_refuses_eager_text_attention(grounding_dino_dir):
    model = GroundingDinoForObjectDetection.from_pretrained(grounding_dino_dir)
    module.check_text_attention(model)
    model.model.text_backbone.config._attn_implementation = 'eager'
    with pytest.raises(RuntimeError, match="runs 'eager' attention"):
        module.check_text_attention(model)


def test_refuses_other_families(dinov2_dir):
    with pytest.raises(ValueError, match="type 'dinov2'"):
        GroundingDINOTeacher(str(dinov2_dir))
