"""Models of the toolboxes at a size for tests, and batches for them."""

import numpy as np
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData

from kpu_mm.registry import MODELS

SIZE = (64, 96)
WIDTH = 48  # of the sentinel in dinov2_dir


def detection_sample():
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    boxes = torch.tensor([[8.0, 8, 40, 40], [30, 10, 90, 60]])
    masks = np.zeros((2, *SIZE), dtype=np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int(), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(
        metainfo=dict(img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0), img_id=0)
    )
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.tensor([1, 7]), masks=BitmapMasks(masks, *SIZE)
    )
    return sample


def segmentation_sample():
    from mmseg.structures import SegDataSample

    labels = torch.randint(0, 150, (1, *SIZE))
    return SegDataSample(
        gt_sem_seg=PixelData(data=labels), metainfo=dict(img_shape=SIZE, ori_shape=SIZE)
    )


def classification_sample():
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(3)


SAMPLES = dict(mmdet=detection_sample, mmseg=segmentation_sample, mmpretrain=classification_sample)


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
    own = dict(type='kpu_mm.KPUBackbone', inplanes=8, sentinel=sentinel)
    if not isinstance(sentinel, dict):
        own['sentinel'] = str(sentinel)
    if model.backbone.type == 'kpu_mm.KPUBackbone':
        own = {**model.backbone, **own, 'norm_cfg': dict(type='BN')}
        own['init_cfg'] = None
    if model.type == 'ImageClassifier':
        model.neck = None
        own.setdefault('out_type', 'summary')
        spatial = own['out_type'] == 'summary_spatial'
        model.head.in_channels = (1 + spatial) * WIDTH
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
        model.decode_head.channels = 16
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
