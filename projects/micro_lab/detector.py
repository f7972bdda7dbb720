"""A detector on frozen features, whose head is linear in them.

    python -m projects.micro_lab.detector RUN CONFIG --pools POOLS

It is the head of FCOS (https://arxiv.org/abs/1904.01355) of MMDetection
without its towers, on all maps of a student joined at stride 8: the counterpart
of a linear probe, which needs few steps where a deep detector needs many. The
features of all scenes are computed once. The scores go to
RUN/detected/scores.json.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from mmdet.evaluation.metrics import CocoMetric
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from kpu_mm.registry import MODELS

from .evaluate import LABELS, Encode, last_checkpoint, student_backbone
from .materials import DIGIT_WORDS
from .micro_scores import PROBE_STRIDE, joined_features
from .scene_pool import SIZE, Scenes, load_pool

# Twice as many change the AP on scenes of the training split by less than 0.01.
STEPS = 1000
_BATCH = 64
_RATE = 2e-3
_WARMUP = 100
_CHUNK = 250  # scenes of a forward pass


class _GivenMap(nn.Module):
    """The backbone of a detector whose input is the map."""

    def forward(self, features: Tensor) -> tuple[Tensor]:
        return (features,)


def build_detector(in_channels: int) -> Any:
    """Build a detector that is linear but for the ReLU of FCOS's distances.

    Args:
        in_channels: Channels of the map.
    """
    head = dict(
        type='FCOSHead',
        num_classes=len(DIGIT_WORDS),
        in_channels=in_channels,
        feat_channels=in_channels,
        stacked_convs=0,
        strides=[PROBE_STRIDE],
        regress_ranges=((-1, math.inf),),
        norm_on_bbox=True,
        centerness_on_reg=True,
        center_sampling=True,
        conv_bias=True,
        norm_cfg=None,
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
    )
    test = dict(
        nms_pre=300,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=30,
    )
    return MODELS.build(
        dict(
            type='mmdet.FCOS',
            backbone=dict(type=_GivenMap),
            neck=None,
            bbox_head=head,
            # the head reads attributes
            test_cfg=ConfigDict(test),
        )
    )


def train_detector(features: Tensor, scenes: Scenes, steps: int = STEPS) -> Any:
    """Train a detector on the features of labelled scenes.

    Args:
        features: (N, C, h, w).
        scenes: The N scenes.
        steps: Steps of 64 scenes. Defaults to 1000.
    """
    torch.manual_seed(0)
    detector = build_detector(features.shape[1])
    detector.init_weights()
    samples = [_sample(scenes, index) for index in range(len(features))]
    optimizer = torch.optim.AdamW(detector.parameters(), _RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / _WARMUP) * (1 + math.cos(math.pi * step / steps)) / 2,
    )
    for _ in range(steps):
        pick = torch.randint(len(samples), (_BATCH,))
        losses = detector.loss(features[pick], [samples[i] for i in pick])
        loss, _ = detector.parse_losses(losses)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    return detector.eval()


@torch.no_grad()
def box_precision(detector: Any, features: Tensor, scenes: Scenes) -> float:
    """Return COCO's AP.

    Args:
        detector: A trained detector.
        features: (N, C, h, w).
        scenes: The N scenes.
    """
    metric = CocoMetric(metric='bbox')
    metric.dataset_meta = dict(classes=DIGIT_WORDS)
    count, boxes = len(features), 0
    for start in range(0, count, _CHUNK):
        chunk = range(start, min(start + _CHUNK, count))
        samples = [_sample(scenes, index) for index in chunk]
        found = detector.predict(features[chunk.start : chunk.stop], samples)
        boxes += sum(len(sample.pred_instances) for sample in found)
        metric.process({}, [sample.to_dict() for sample in found])
    if not boxes:
        return 0.0  # MMDetection has no score for that
    precision: float = metric.evaluate(count)['coco/bbox_mAP']
    return precision


def evaluate_detector(
    encode: Encode,
    train: Scenes,
    test: Scenes,
    steps: int = STEPS,
    labels: tuple[int, ...] = LABELS,
) -> dict[str, float]:
    """Train detectors on frozen features and score them.

    Args:
        encode: Raw images to features.
        train: Scenes of the training split, as many as the most labels.
        test: Scenes to score.
        steps: Steps of each training. Defaults to 1000.
        labels: Numbers of labelled scenes. Defaults to (200, 8000).

    Returns:
        For each number of labels the AP, such as ``box_ap_200``, a share.
    """
    register_all_modules(init_default_scope=False)
    features, test_features = _collect(encode, train), _collect(encode, test)
    scores = {}
    for number in labels:
        few = features[:number]
        mean, std = few.mean((0, 2, 3), keepdim=True), few.std((0, 2, 3), keepdim=True) + 1e-6
        detector = train_detector((few - mean) / std, train.take(slice(number)), steps)
        scores[f'box_ap_{number}'] = box_precision(detector, (test_features - mean) / std, test)
    return scores


@torch.no_grad()
def _collect(encode: Encode, scenes: Scenes) -> Tensor:
    features = joined_features(encode)
    return torch.cat([features(images)[1] for images in scenes.images.split(_CHUNK)])


def _sample(scenes: Scenes, index: int) -> DetDataSample:
    """A scene with its labels, for training and for COCO's score."""
    count = int((scenes.digits[index] >= 0).sum())
    boxes, labels = scenes.boxes[index, :count], scenes.digits[index, :count]
    truth = [
        dict(bbox=box, bbox_label=label)
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True)
    ]
    shape = (SIZE, SIZE)
    sample = DetDataSample(
        metainfo=dict(
            img_id=index, img_shape=shape, ori_shape=shape, scale_factor=(1, 1), instances=truth
        )
    )
    sample.gt_instances = InstanceData(bboxes=boxes.float(), labels=labels)
    return sample


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('run', type=Path, help='gets detected/scores.json')
    parser.add_argument('config', type=Path)
    parser.add_argument('--pools', type=Path, required=True)
    parser.add_argument('--count', type=int, default=1000, help='scenes to score')
    parser.add_argument(
        '--untrained', type=int, metavar='SEED', help='score the student before any distillation'
    )
    parser.add_argument('--steps', type=int, default=STEPS)
    parser.add_argument(
        '--validate',
        action='store_true',
        help='score scenes of the training split that no training uses',
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = None if args.untrained is not None else last_checkpoint(args.run)
    encode = student_backbone(args.config, checkpoint, args.untrained or 0)
    # Seeds 0 to 2 are those of the teachers, the students and the probes.
    train = load_pool(args.pools, 'train', seed=2, count=max(LABELS))
    test = (
        load_pool(args.pools, 'train', seed=5, count=args.count)
        if args.validate
        else load_pool(args.pools, 'test', seed=0, count=args.count)
    )
    scores = evaluate_detector(encode, train, test, args.steps)
    folder = args.run / 'detected'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'scores.json').write_text(json.dumps(scores, indent=2) + '\n')


if __name__ == '__main__':
    main()
