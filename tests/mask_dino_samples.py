"""Made-up samples and a small head for the tests of Mask DINO."""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from kpu_mm.registry import MODELS

CANVAS = (64, 96)
IMAGE = (60, 90)
CHANNELS = (8, 12, 16, 20)


def small_head(**changes):
    """A narrow head over maps of CHANNELS, of few layers."""
    cfg = dict(
        type='kpu_mm.MaskDINOHead',
        num_things_classes=4,
        pixel_decoder=dict(
            type='kpu_mm.MaskDINOPixelDecoder',
            in_channels=CHANNELS,
            embed_dims=64,
            num_layers=1,
            ffn_channels=32,
        ),
        queries=dict(type='kpu_mm.SelectedQueries', num_queries=10),
        decoder=dict(num_layers=2, ffn_channels=32),
        denoising=dict(num_queries=10),
        train_cfg=dict(num_points=64),
    )
    return MODELS.build({**cfg, **changes})


def backbone_maps(batch):
    height, width = CANVAS
    return [
        torch.randn(batch, channels, height >> i, width >> i)
        for i, channels in enumerate(CHANNELS, start=2)
    ]


def sample(boxes=(), labels=(), **meta):
    """A data sample with rectangles (x1, y1, x2, y2) in whole pixels."""
    masks = np.zeros((len(boxes), *IMAGE), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    data = DetDataSample(
        metainfo=dict(
            batch_input_shape=CANVAS, img_shape=IMAGE, ori_shape=IMAGE, img_path='scene.png', **meta
        )
    )
    data.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        masks=BitmapMasks(masks, *IMAGE),
    )
    return data


def random_sample(count, num_classes=4):
    corners = torch.rand(count, 2) * 40
    boxes = torch.cat((corners, corners + 5 + torch.rand(count, 2) * 14), 1)
    return sample(boxes.int().tolist(), torch.randint(num_classes, (count,)).tolist())
