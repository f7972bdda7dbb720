"""The backbone in the toolboxes' own configs: a step, and predictions."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData

from kpu_mm.models.backbones import sentinel_checkpoints
from kpu_mm.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs' / 'downstream'
SIZE = (64, 96)
WIDTH = 48
STOCK = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
]
OURS = sorted(CONFIGS.glob('*/*dinov2-adapter*.py'))


def detection_sample():
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    boxes = torch.tensor([[8.0, 8, 40, 40], [30, 10, 90, 60]])
    masks = np.zeros((2, *SIZE), dtype=np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int(), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(
        metainfo=dict(
            img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0), img_id=0
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.tensor([1, 7]),
        masks=BitmapMasks(masks, *SIZE),
    )
    return sample


def segmentation_sample():
    from mmseg.structures import SegDataSample

    labels = torch.randint(0, 150, (1, *SIZE))
    return SegDataSample(
        gt_sem_seg=PixelData(data=labels),
        metainfo=dict(img_shape=SIZE, ori_shape=SIZE),
    )


def classification_sample():
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(3)


SAMPLES = dict(
    mmdet=detection_sample,
    mmseg=segmentation_sample,
    mmpretrain=classification_sample,
)


def batch_of(scope):
    """Two raw images, as the pipeline of a toolbox gives them."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    samples = [SAMPLES[scope]() for _ in images]
    inputs = images if scope == 'mmpretrain' else list(images)
    return dict(inputs=inputs, data_samples=samples)


def fit_channels(model):
    """What a user changes beside the backbone: the channels it gives."""
    for key in ('neck', 'panoptic_head', 'decode_head', 'auxiliary_head'):
        part = model.get(key)
        if part is None or 'in_channels' not in part:
            continue
        several = isinstance(part.in_channels, list)
        length = len(part.in_channels) if several else 1
        part.in_channels = [WIDTH] * length if several else WIDTH


def shrink(cfg, sentinel, **backbone):
    """The config with a small backbone in place of its own."""
    model = cfg.model
    model.pop('pretrained', None)
    own = dict(type='kpu_mm.KPUBackbone', inplanes=8, sentinel=str(sentinel))
    if model.backbone.type == 'kpu_mm.KPUBackbone':
        own = {**model.backbone, **own, 'norm_cfg': dict(type='BN')}
    if model.type == 'ImageClassifier':
        model.neck = None
        model.head.in_channels = WIDTH
        own['out_type'] = 'summary'
    if model.type == 'RetinaNet':  # its FPN would leave stride 4 out
        own['out_indices'] = (1, 2, 3)
        model.neck.update(start_level=0, in_channels=[WIDTH] * 3)
    if 'roi_head' in model:
        model.roi_head.bbox_head.fc_out_channels = 16
        model.train_cfg.rpn_proposal.max_per_img = 50
        model.train_cfg.rcnn.sampler.num = 16
        model.test_cfg.rpn.max_per_img = 20
    if model.type == 'DINO':  # three levels, fewer cells than queries
        own['out_indices'] = (1, 2, 3)
        model.num_queries = 10
    if model.type == 'Mask2Former':
        model.train_cfg.num_points = 64
        model.data_preprocessor.batch_augments = None
    if model.type == 'EncoderDecoder':
        model.data_preprocessor.update(size=SIZE, test_cfg=None)
        model.test_cfg = dict(mode='whole')
    model.backbone = {**own, **backbone}
    fit_channels(model)
    return cfg


def build(cfg):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        model.init_weights()
        # at 0, images would leave the injectors without gradient
        for name, p in model.backbone.named_parameters():
            if name.endswith('injector.gamma'):
                p.data.fill_(0.1)
        return model, build_optim_wrapper(model, cfg.optim_wrapper)


@pytest.mark.slow
@pytest.mark.parametrize(
    'source', [*STOCK, *OURS], ids=lambda s: Path(str(s)).stem
)
def test_trains_a_step_and_predicts(source, dinov2_dir, monkeypatch):
    # nobody's weights are downloaded: the backbone is ours
    cfg = get_config(source) if source in STOCK else Config.fromfile(source)
    model, optim_wrapper = build(shrink(cfg, dinov2_dir))
    before = copy.deepcopy(dict(model.named_parameters()))
    # a step would end by forgetting them
    monkeypatch.setattr(optim_wrapper, 'zero_grad', lambda **kwargs: None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        losses = model.train().train_step(
            batch_of(cfg.default_scope), optim_wrapper
        )
        results = model.eval().test_step(batch_of(cfg.default_scope))
    assert np.isfinite(float(losses['loss']))
    trained = cfg.model.backbone.get('frozen') == 'none'
    for name, p in model.named_parameters():
        if name.startswith('backbone.sentinel') and not trained:
            assert torch.equal(p, before[name]), name
        elif name.startswith('backbone.') and p.requires_grad:
            assert p.grad is not None, name
    moved = 'backbone.prior.projections.1.weight'
    assert not torch.equal(model.get_parameter(moved), before[moved])
    check = dict(
        mmdet=lambda r: r.pred_instances.scores,
        mmseg=lambda r: r.seg_logits.data,
        mmpretrain=lambda r: r.pred_score,
    )[cfg.default_scope]
    assert len(results) == 2
    assert all(torch.isfinite(check(r)).all() for r in results)


def test_frozen_features_stay_bit_for_bit(dinov2_dir):
    """Parameters, buffers and the statistics of BatchNorm."""
    cfg = get_config(STOCK[5])
    norm = dict(type='BN')
    shrink(cfg, dinov2_dir, frozen='all', norm_cfg=norm)
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.update(channels=8, norm_cfg=norm)
    model, optim_wrapper = build(cfg)
    backbone = dict(model.backbone.named_parameters())
    backbone |= dict(model.backbone.named_buffers())
    assert any('running_mean' in name for name in backbone)
    before = copy.deepcopy(backbone)
    head = model.decode_head.conv_seg.weight.clone()
    model.train()
    for _ in range(3):
        model.train_step(batch_of('mmseg'), optim_wrapper)
    assert not torch.equal(model.decode_head.conv_seg.weight, head)
    for name, value in backbone.items():
        assert torch.equal(value, before[name]), name


def test_distilled_checkpoint_in_a_stock_config(
    dinov2_dir, tmp_path, monkeypatch
):
    """Missing and unexpected keys are named."""
    backbone = dict(
        type='kpu_mm.KPUBackbone', inplanes=8, sentinel=str(dinov2_dir)
    )
    source = MODELS.build(backbone)
    source.up.weight.data.fill_(0.5)
    state = {f'student.{k}': v for k, v in source.state_dict().items()}
    del state['student.level_embed']
    state['student.extra'] = torch.zeros(1)
    path = tmp_path / 'iter_1.pth'
    torch.save(dict(state_dict=state), path)
    cfg = get_config(STOCK[2])
    shrink(
        cfg,
        dinov2_dir,
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    logged = []
    monkeypatch.setattr(
        sentinel_checkpoints,
        'print_log',
        lambda text, **_: logged.append(text),
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        model.init_weights()
    assert (model.backbone.up.weight == 0.5).all()
    assert "missing keys ['level_embed']" in logged[0]
    assert "unexpected keys ['extra']" in logged[0]
