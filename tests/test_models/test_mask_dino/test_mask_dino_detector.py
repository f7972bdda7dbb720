"""Perfect predictions get perfect scores from MMDetection's metrics."""

import json

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric, CocoPanopticMetric, SemSegMetric
from mmengine.structures import PixelData
from PIL import Image

from kpu_mm.models.mask_dino.criterion import HeadOutputs
from kpu_mm.models.mask_dino.predictor import Predictions
from kpu_mm.registry import MODELS
from tests.mask_dino_samples import CANVAS, IMAGE, sample

THINGS, STUFF = ('cat', 'dog'), ('grass', 'sky')
# (label, box) in pixels of the image, on the grid of 4 pixels
OBJECTS = [(0, (0, 0, 40, 40)), (1, (40, 8, 88, 40)), (1, (48, 40, 88, 56)), (2, (0, 40, 48, 60))]


@pytest.fixture
def detector(monkeypatch):
    """Answers OBJECTS whatever it is shown."""
    cfg = dict(
        type='kpu_mm.MaskDINO',
        backbone=dict(type='mmdet.ResNet', depth=18, base_channels=8),
        bbox_head=dict(
            type='kpu_mm.MaskDINOHead',
            num_things_classes=2,
            num_stuff_classes=2,
            pixel_decoder=dict(
                type='kpu_mm.MaskDINOPixelDecoder', in_channels=[8, 16, 32, 64], embed_dims=32
            ),
            queries=dict(type='kpu_mm.SelectedQueries', num_queries=4),
        ),
        test_cfg=dict(instance_on=True, semantic_on=True, panoptic_on=True),
    )
    model = MODELS.build(cfg).eval()
    height, width = CANVAS
    features = torch.full((len(OBJECTS), height // 4, width // 4), -20.0)
    logits = torch.full((len(OBJECTS), 4), -10.0)
    boxes = torch.zeros(len(OBJECTS), 4)
    for i, (label, (left, top, right, bottom)) in enumerate(OBJECTS):
        features[i, top // 4 : -(-bottom // 4), left // 4 : right // 4] = 20.0
        logits[i, label] = 10.0
        boxes[i] = torch.tensor(
            [
                (left + right) / 2 / width,
                (top + bottom) / 2 / height,
                (right - left) / width,
                (bottom - top) / height,
            ]
        )
    last = Predictions(logits, boxes, torch.eye(len(OBJECTS)))
    outputs = HeadOutputs((Predictions(*(part[None] for part in last)),), (), None, features[None])
    monkeypatch.setattr(model.bbox_head, 'forward', lambda maps: outputs)
    return model


@pytest.fixture
def prediction(detector):
    data = sample(img_id=1)
    data.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(truth()[1])[None])
    images = torch.randn(1, 3, *CANVAS)
    return detector(images, [data], mode='predict')[0].to_dict()


def truth():
    """Instances' numbers and classes of all pixels; 255 for none."""
    numbers = np.zeros(IMAGE, np.uint8)
    labels = np.full(IMAGE, 255, np.uint8)
    for i, (label, (left, top, right, bottom)) in enumerate(OBJECTS):
        numbers[top:bottom, left:right] = i + 1
        labels[top:bottom, left:right] = label
    return numbers, labels


def categories(names, first=1):
    return [
        dict(id=i, name=name, isthing=int(name in THINGS))
        for i, name in enumerate(names, start=first)
    ]


IMAGES = [dict(id=1, file_name='scene.png', height=IMAGE[0], width=IMAGE[1])]


def test_coco_metric(prediction, tmp_path):
    annotations = []
    for i, (label, (x, y, right, bottom)) in enumerate(OBJECTS):
        w, h = right - x, bottom - y
        corners = [x, y, right, y, right, bottom, x, bottom]
        annotations.append(
            dict(
                id=i + 1,
                image_id=1,
                category_id=label + 1,
                bbox=[x, y, w, h],
                segmentation=[corners],
                area=w * h,
                iscrowd=0,
            )
        )
    things = [a for a in annotations if a['category_id'] <= len(THINGS)]
    path = tmp_path / 'instances.json'
    path.write_text(
        json.dumps(dict(images=IMAGES, annotations=things, categories=categories(THINGS)))
    )
    metric = CocoMetric(ann_file=str(path), metric=['bbox', 'segm'])
    metric.dataset_meta = dict(classes=THINGS)
    metric.process({}, [prediction])
    results = metric.evaluate(size=1)
    assert results['coco/bbox_mAP'] == 1.0
    assert results['coco/segm_mAP'] > 0.9  # corners are rounded


def test_sem_seg_metric(prediction):
    metric = SemSegMetric()
    metric.dataset_meta = dict(classes=THINGS + STUFF[:1])
    metric.process({}, [prediction])
    assert metric.evaluate(size=1)['mIoU'] > 97


def test_coco_panoptic_metric(prediction, tmp_path):
    pytest.importorskip('panopticapi')
    numbers, _ = truth()
    rgb = np.stack((numbers, numbers * 0, numbers * 0), -1)
    Image.fromarray(rgb).save(tmp_path / 'scene.png')
    segments = [
        dict(
            id=i + 1,
            category_id=label + 1,
            area=int((numbers == i + 1).sum()),
            iscrowd=0,
            bbox=[0, 0, 1, 1],
        )
        for i, (label, _) in enumerate(OBJECTS)
    ]
    path = tmp_path / 'panoptic.json'
    path.write_text(
        json.dumps(
            dict(
                images=IMAGES,
                annotations=[dict(image_id=1, file_name='scene.png', segments_info=segments)],
                categories=categories(THINGS + STUFF),
            )
        )
    )
    metric = CocoPanopticMetric(ann_file=str(path), seg_prefix=str(tmp_path), nproc=1)
    metric.dataset_meta = dict(classes=THINGS + STUFF, thing_classes=THINGS, stuff_classes=STUFF)
    metric.process({}, [prediction])
    results = metric.evaluate(size=1)
    assert results['coco_panoptic/PQ'] > 95
    assert results['coco_panoptic/RQ_th'] == 100
