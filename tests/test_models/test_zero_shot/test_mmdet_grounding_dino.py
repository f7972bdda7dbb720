"""The student before MMDetection's GroundingDINO, by its own config."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

from kpu_mm.weights.state_dict import settle_unused
from tests.runs import ROOT

pytestmark = pytest.mark.slow
CONFIG = ROOT / 'configs/zero_shot/coco/mmdet-grounding-dino_kpu-vitb.py'
SHIPPED = 'grounding_dino/grounding_dino_swin-t_pretrain_obj365_goldg_cap4m.py'
TEXT = dict(text=('cat', 'a dog', 'remote control'), custom_entities=True)


@pytest.fixture(scope='module')
def bert_dir(grounding_dino_dir, tmp_path_factory):
    """A tiny BERT under the tokenizer of the tiny GroundingDINO."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp('bert')
    config = json.loads((grounding_dino_dir / 'config.json').read_text())
    text = BertConfig(**config['text_config'])
    BertModel(text, add_pooling_layer=False).save_pretrained(folder)
    vocab = str(grounding_dino_dir / 'vocab.txt')
    BertTokenizerFast(vocab).save_pretrained(folder)
    return folder


@pytest.fixture(scope='module')
def build(bert_dir):
    """Both detectors with few and narrow layers, and a tiny Swin's maps."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)

    def build(model, backbone):
        model = ConfigDict(model.to_dict())
        model.backbone = backbone
        model.language_model.update(name=str(bert_dir), add_pooling_layer=False)
        model.neck.in_channels = [32, 64, 128]
        model.num_queries = 10
        model.encoder.update(num_layers=1, num_cp=0)
        model.decoder.num_layers = 1
        for part in (model.encoder, model.decoder):
            part.layer_cfg.ffn_cfg.feedforward_channels = 32
        model.encoder.fusion_layer_cfg.embed_dim = 32
        model.test_cfg.max_per_img = 20
        with torch.random.fork_rng(), DefaultScope.overwrite_default_scope('mmdet'):
            torch.manual_seed(0)
            return MODELS.build(model).eval()

    return build


@pytest.fixture(scope='module')
def detectors(build, zero_shot_run):
    """MMDetection's own, and that with the student's maps."""
    from mmengine.hub import get_config

    swin = dict(
        type='SwinTransformer',
        embed_dims=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 4, 8],
        window_size=4,
        out_indices=(1, 2, 3),
    )
    cfg = Config.fromfile(CONFIG)
    student = dict(cfg.model.backbone, source=str(zero_shot_run / 'iter_1.pth'))
    own = build(get_config(f'mmdet::{SHIPPED}').model, swin)
    detectors = own, build(cfg.model, student)
    for detector in detectors:
        # MMDetection leaves it as it finds the memory, NaN included
        torch.nn.init.normal_(detector.level_embed)
    return detectors


@torch.no_grad()
def predict(detector, image):
    from mmdet.structures import DetDataSample

    meta = dict(img_shape=(96, 128), ori_shape=(96, 128), scale_factor=(1.0, 1.0))
    data = dict(
        inputs=[torch.from_numpy(image).permute(2, 0, 1)],
        data_samples=[DetDataSample(metainfo=dict(meta, **TEXT))],
    )
    (sample,) = detector.test_step(data)
    return sample.pred_instances


class Given(nn.Module):
    def __init__(self, maps):
        super().__init__()
        self.maps = maps

    def forward(self, images):
        return self.maps


def test_student_s_maps_reach_the_decoder(detectors):
    own, projected = detectors
    # the checkpoint of the detector with a Swin fits but for the Swin
    state = own.state_dict()
    assert any(name.startswith('backbone.') for name in state)
    # as mmdet's groundingdino_to_mmdet.py leaves it
    del state['dn_query_generator.label_embedding.weight']
    settle_unused(projected, state)
    projected.load_state_dict(state, strict=True)
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    before = predict(own, image)
    found = predict(projected, image)
    assert len(found) == 20 and not torch.equal(found.scores, before.scores)
    assert set(found.label_names) <= set(TEXT['text'])
    # the neck gets what the projectors give of raw RGB
    x = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None]
    maps = projected.backbone.encode(x).maps
    swin, own.backbone = own.backbone, Given(maps)
    again = predict(own, image)
    own.backbone = swin
    torch.testing.assert_close(found.scores, again.scores)
    torch.testing.assert_close(found.bboxes, again.bboxes)


def test_teacher_s_own_maps_change_nothing(detectors):
    """Bit for bit: the Swin's maps at the place of the student."""
    own, projected = detectors
    projected.load_state_dict(own.state_dict(), strict=True)
    image = np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8)
    expected = predict(own, image)
    data = [torch.from_numpy(image).permute(2, 0, 1)]
    inputs = own.data_preprocessor(dict(inputs=data))['inputs']
    with torch.no_grad():
        maps = own.backbone(inputs)
    student, projected.backbone = projected.backbone, Given(maps)
    found = predict(projected, image)
    projected.backbone = student
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.bboxes, expected.bboxes)
    assert torch.equal(found.labels, expected.labels)
