from __future__ import annotations

import hashlib

import pytest
import torch
from transformers import AutoProcessor, ResNetBackbone

from kpu_mm.models import KPUBackbone
from kpu_mm.models.teachers import (
    CLIPTeacher,
    DINOTeacher,
    GroundingDINOTeacher,
)
from projects.micro_lab.digit_prompt import Prompt, detect
from projects.micro_lab.micro_clip import CLIPNet, build_clip
from projects.micro_lab.micro_export import (
    export_clip,
    export_grounding_dino,
    export_sentinel,
    write_card,
)
from projects.micro_lab.micro_grounding_dino import BACKBONE, build_detector
from projects.micro_lab.micro_sentinel import SentinelNet, build_sentinel

# fp16 keeps 11 bits; what passes a dozen layers loses a few of them
CLOSE = dict(rtol=0.0, atol=0.03)


@pytest.fixture
def images(batch):
    return batch.images[:3]


def test_clip(tmp_path, images):
    torch.manual_seed(0)
    net = CLIPNet(build_clip()).eval()
    export_clip(net.model, tmp_path)
    teacher = CLIPTeacher(f'local-dir:{tmp_path}', with_text=True)
    with torch.no_grad():
        summary, patches = net.look(images)
    found = teacher(images.permute(0, 3, 1, 2))
    torch.testing.assert_close(found.summary, summary, **CLOSE)
    torch.testing.assert_close(found.maps[0], patches, **CLOSE)
    texts = ['a red three', 'the digit nine']
    assert torch.equal(teacher.tokenizer()(texts), net.tokens(texts))


def test_grounding_dino(tmp_path, images):
    torch.manual_seed(0)
    detector = build_detector(ResNetBackbone(BACKBONE)).eval()
    export_grounding_dino(detector, tmp_path)
    teacher = GroundingDINOTeacher(str(tmp_path), with_text=True)
    assert teacher.strides == (8, 16, 32)
    prompt = Prompt(torch.arange(10))
    with torch.no_grad():
        expected = detect(detector, images, prompt)
        found = detect(teacher.model, images, prompt)
    # near ties of random proposals may swap queries
    shown = expected.enc_outputs_class.isfinite()
    torch.testing.assert_close(
        found.enc_outputs_class[shown],
        expected.enc_outputs_class[shown],
        rtol=0.0,
        atol=0.1,
    )
    processor = AutoProcessor.from_pretrained(tmp_path)
    inputs = processor(
        images=[images[0].numpy()], text='three. one.', return_tensors='pt'
    )
    assert inputs['pixel_values'].shape == (1, 3, 64, 64)
    assert inputs['input_ids'][0].tolist() == [101, 203, 1012, 201, 1012, 102]


def test_sentinel(tmp_path, images):
    torch.manual_seed(0)
    net = SentinelNet(build_sentinel()).eval()
    export_sentinel(net.model, tmp_path)
    with torch.no_grad():
        summary, patches = net.features(images)
    found = DINOTeacher(str(tmp_path))(images.permute(0, 3, 1, 2))
    torch.testing.assert_close(found.summary, summary, **CLOSE)
    torch.testing.assert_close(found.maps[0], patches, **CLOSE)
    backbone = KPUBackbone(sentinel=str(tmp_path), inplanes=8)
    assert backbone.embed_dims == patches.shape[1]


def test_card_names_the_weights(tmp_path):
    weights = tmp_path / 'model.safetensors'
    weights.write_bytes(b'weights')
    write_card(tmp_path, 'Name', 'Text.', {'seed': 3}, {'AP': 0.51239})
    card = (tmp_path / 'README.md').read_text()
    assert hashlib.sha256(b'weights').hexdigest() in card
    assert '| seed | 3 |' in card and '| AP | 0.512 |' in card
