import re
from pathlib import Path

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torchvision.models import resnet50

from kpu_mm.registry import MODELS
from tests.mask_dino_pair import assert_same, build_reference, head_config, rendered
from tests.references.mask_dino.backbones import TimmSwin, TorchvisionR50, resnet_state, swin_state
from tools.model_converters.mask_dino import convert_official, describe_official

CONFIGS = Path(__file__).parents[2] / 'configs' / 'downstream' / 'coco'
PREFIX = 'sem_seg_head.predictor.'
R50 = dict(type='mmdet.ResNet', depth=50, style='pytorch', norm_eval=True)
SWIN = dict(
    type='mmdet.SwinTransformer',
    embed_dims=32,
    depths=(2, 2, 2, 2),
    num_heads=(1, 2, 4, 8),
    window_size=2,
    drop_path_rate=0.0,
)


def official_state(backbone, reference):
    """What a checkpoint of the official training holds."""
    head = {f'sem_seg_head.{k}': v for k, v in reference.state_dict().items()}
    return {**backbone, **head, 'criterion.empty_weight': torch.ones(8)}


def detector(backbone, channels, **options):
    return MODELS.build(
        dict(
            type='kpu_mm.MaskDINO',
            backbone=backbone,
            bbox_head=dict(type='kpu_mm.MaskDINOHead', **head_config(channels=channels, **options)),
        )
    ).eval()


@pytest.fixture(scope='module')
def small():
    """An official checkpoint of a narrow R50 model, and the detector."""
    backbone = TorchvisionR50()
    reference = build_reference(channels=backbone.channels, depth=2)
    model = detector(R50, backbone.channels, depth=2)
    return official_state(backbone.official_state(), reference), model


@torch.no_grad()
@pytest.mark.parametrize(
    ('other', 'config', 'layout', 'canvas'),
    [(TorchvisionR50, R50, '3s', (64, 96)), (TimmSwin, SWIN, '5s', (128, 192))],
)
def test_whole_detector(other, config, layout, canvas):
    """Backbones of other libraries and the reference, from pixels on."""
    backbone = other()
    options = dict(layout=layout, depth=2)
    reference = build_reference(channels=backbone.channels, **options)
    model = detector(config, backbone.channels, **options)
    official = official_state(backbone.official_state(), reference)
    weights = convert_official(official, model.state_dict())
    model.load_state_dict(weights)

    images = torch.randn(2, 3, *canvas)
    maps, wanted = model.backbone(images), backbone(images)
    for ours, theirs in zip(maps, wanted, strict=True):
        scale = theirs.abs().max().item()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * scale)
    ours = model.bbox_head(wanted)
    assert_same(rendered(ours.matching[-1], ours.mask_features), reference(wanted).sets[-1])


def hollow(state):
    """The same names and shapes without the memory."""
    return {k: torch.zeros(()).expand(v.shape) for k, v in state.items()}


@pytest.mark.parametrize(
    ('config', 'layout', 'ffn', 'classes', 'text'),
    [
        ('r50_3s', '3s', 1024, 80, '3 levels (0 below the backbone'),
        ('r50_4s', '4s', 2048, 80, '4 levels (1 below the backbone'),
        ('r50_panoptic', '4s', 2048, 133, '133 class outputs'),
        ('swin-l', '5s', 2048, 80, '5 levels (1 below the backbone'),
    ],
)
def test_full_size(config, layout, ffn, classes, text, monkeypatch):
    """Every official name and shape has its place in the configs' models."""
    cfg = Config.fromfile(CONFIGS / f'mask-dino_{config}_50e.py')
    with torch.device('meta'):
        if config == 'swin-l':
            swin = timm.create_model('swin_large_patch4_window12_384')
            backbone, channels = swin_state(swin), (192, 384, 768, 1536)
            # MMDetection reads numbers from this while it builds
            monkeypatch.setattr(torch, 'linspace', linspace_on_cpu)
        else:
            backbone = resnet_state(resnet50())
            channels = (256, 512, 1024, 2048)
        reference = build_reference(
            layout=layout,
            channels=channels,
            dims=256,
            heads=8,
            encoder_depth=6,
            encoder_ffn=ffn,
            ffn=2048,
            classes=classes,
            queries=300,
        )
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = MODELS.build(cfg.model).state_dict()
    official = hollow(official_state(backbone, reference))
    weights = convert_official(official, model)
    assert text in str(describe_official(official))
    assert f'FFN {ffn}' in str(describe_official(official))
    rest = set(model) - set(weights)
    assert all(name.endswith('num_batches_tracked') for name in rest)


linspace = torch.linspace


def linspace_on_cpu(*args, **kwargs):
    return linspace(*args, **{**kwargs, 'device': 'cpu'})


def test_every_official_weight_is_used(small):
    official, model = small
    weights = convert_official(official, model.state_dict())
    used = {value.data_ptr() for value in weights.values()}
    unused = [k for k, v in official.items() if v.data_ptr() not in used]
    assert unused == ['criterion.empty_weight']
    aliases = [name for name in official if re.search(r'\.bbox_embed\.\d|decoder\.norm\.', name)]
    # three layers of weight and bias, twice for each of two layers, and
    # the norm
    assert len(aliases) == 6 * 2 * 2 + 2
    assert len(official) == len(weights) + len(aliases) + 1


def test_aliases_must_be_equal(small):
    official, model = small
    name = f'{PREFIX}decoder.bbox_embed.1.layers.0.bias'
    changed = {**official, name: official[name] + 1}
    with pytest.raises(ValueError, match=rf'{re.escape(name)}.*differ'):
        convert_official(changed, model.state_dict())


def test_one_of_several_names_is_enough(small):
    official, model = small
    fewer = {k: v for k, v in official.items() if '._bbox_embed.' not in k}
    assert len(fewer) < len(official)
    weights = convert_official(fewer, model.state_dict())
    assert set(weights) == set(convert_official(official, model.state_dict()))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda s: s.update({f'{PREFIX}extra.weight': torch.ones(1)}),
            r'has no place for sem_seg_head\.predictor\.extra\.weight\.',
        ),
        (
            lambda s: s.pop(f'{PREFIX}enc_output.bias'),
            r'does not find bbox_head\.queries\.memory_trans_fc\.bias',
        ),
        (
            lambda s: s.update({f'{PREFIX}class_embed.bias': torch.ones(9)}),
            r'other shapes for .*class_embed\.bias \(9,\) -> \(7,\)',
        ),
        (
            lambda s: s.pop('backbone.res4.5.conv2.norm.running_var'),
            r'does not find backbone\.layer3\.5\.bn2\.running_var',
        ),
    ],
)
def test_what_does_not_fit(small, change, message):
    official, model = small
    changed = dict(official)
    change(changed)
    with pytest.raises(ValueError, match=message):
        convert_official(changed, model.state_dict())


def test_no_mask_dino(small):
    official, _ = small
    others = {k: v for k, v in official.items() if k.startswith('backbone')}
    with pytest.raises(ValueError, match='no Mask DINO checkpoint'):
        describe_official(others)
