"""Scores of models on digit scenes: zero-shot accuracy, AP, linear probes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert

from kpu_mm.models.zero_shot import Boxes
from kpu_mm.structures import Features

from .digit_scenes import CAPTIONS
from .materials import DIGIT_WORDS
from .micro_grounding_dino import Prompt, detect
from .scene_pool import SIZE, Scenes

# The prompts of a digit are the captions without a colour.
PROMPTS = [text for text in CAPTIONS if 'colour' not in text]
# From images (B, H, W, 3) uint8 to a summary (B, D) and a map (B, C, h, w).
FeatureFunction = Callable[[Tensor], tuple[Tensor, Tensor]]
# From the same images to the detected digits of each.
Detector = Callable[[Tensor], list[Boxes]]
_CHUNK = 250  # scenes of a forward pass
PROBE_STEPS = 600
PROBE_STRIDE = 8  # pixels of a cell of the segmentation probe


def features_of(encode: Callable[[Tensor], Features]) -> FeatureFunction:
    """Adapt an encoder to the images of a pool.

    Args:
        encode: Raw images (B, 3, H, W) to features with a summary.
    """

    def features(images: Tensor) -> tuple[Tensor, Tensor]:
        # (B, H, W, 3) -> (B, 3, H, W)
        found = encode(images.permute(0, 3, 1, 2))
        assert found.summary is not None
        return found.summary, found.maps[-1]

    return features


def joined_features(encode: Callable[[Tensor], Features]) -> FeatureFunction:
    """Adapt an encoder for probes: all of its maps on one grid.

    Args:
        encode: Raw images (B, 3, H, W) to features; where they have no
            summary, the mean of the coarsest map takes its place.
    """

    def features(images: Tensor) -> tuple[Tensor, Tensor]:
        found = encode(images.permute(0, 3, 1, 2))
        grid = (SIZE // PROBE_STRIDE,) * 2
        # finer maps are averaged, coarser ones enlarged: each (B, C_i, h, w)
        maps = [
            F.adaptive_avg_pool2d(m, grid)
            if m.shape[-1] >= grid[0]
            else F.interpolate(m, grid, mode='bilinear')
            for m in found.maps
        ]
        summary = found.summary
        return found.maps[-1].mean((-2, -1)) if summary is None else summary, torch.cat(maps, 1)

    return features


@torch.no_grad()
def zero_shot_accuracy(
    features: FeatureFunction,
    encode_text: Callable[[Tensor], Tensor],
    tokenizer: Callable[[list[str]], Tensor],
    batch: Scenes,
) -> dict[str, float]:
    """Return the top-1 accuracy of a CLIP for the dominant digit.

    Args:
        features: The image tower.
        encode_text: The text tower.
        tokenizer: Texts to token ids.
        batch: Scenes.
    """
    columns = []
    for word in DIGIT_WORDS:
        texts = tokenizer([text.format(digit=word) for text in PROMPTS])
        mean = F.normalize(encode_text(texts), dim=1).mean(0)
        columns.append(F.normalize(mean, dim=0))
    classifier = torch.stack(columns, 1)  # (D, 10)
    found = torch.cat(
        [(features(images)[0] @ classifier).argmax(1) for images in batch.images.split(_CHUNK)]
    )
    right = found == batch.digits[:, 0]
    alone = (batch.digits >= 0).sum(1) == 1
    return {
        'zero_shot_top1': right.float().mean().item(),
        'zero_shot_top1_one_digit': right[alone].float().mean().item(),
    }


def find_digits(detector: Any, images: Tensor) -> list[Boxes]:
    """Detect all ten digits with one prompt.

    Args:
        detector: GroundingDINO in eval mode.
        images: Scenes, (B, H, W, 3) uint8.

    Returns:
        For each scene a box for each pair of a query and a digit.
    """
    prompt = Prompt(torch.arange(10))
    out = detect(detector, images, prompt)
    scores = out.logits[..., prompt.column].sigmoid()  # (B, Q, 10)
    boxes = box_convert(out.pred_boxes, 'cxcywh', 'xyxy')
    labels = torch.arange(10).repeat(scores.shape[1])
    return [
        # (Q, 4) -> (Q * 10, 4) and (Q, 10) -> (Q * 10,)
        Boxes(box.repeat_interleave(10, 0), score.flatten(), labels, DIGIT_WORDS)
        for box, score in zip(boxes, scores, strict=True)
    ]


@torch.no_grad()
def average_precision(detector: Detector, pool: Scenes, count: int) -> dict[str, float]:
    """Return COCO's AP of a detector of the ten digits.

    Args:
        detector: The detector.
        pool: Scenes.
        count: Number of scenes to use, from the first.
    """
    # Training needs pycocotools only for this score.
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    coco, found = COCO(), []
    truth: list[dict[str, Any]] = []
    for start in range(0, count, _CHUNK):
        batch = pool.take(slice(start, min(start + _CHUNK, count)))
        for image, boxes in enumerate(detector(batch.images), start):
            # loadRes wants image, box as x, y, w, h, score and class.
            columns = [
                torch.full_like(boxes.scores, image)[:, None],
                box_convert(boxes.boxes * SIZE, 'xyxy', 'xywh'),
                boxes.scores[:, None],
                boxes.labels[:, None],
            ]
            found.append(torch.cat(columns, 1).numpy())
        for image, number in (batch.digits >= 0).nonzero():
            corners = batch.boxes[image, number].float()
            box = box_convert(corners, 'xyxy', 'xywh').tolist()
            truth.append(
                {
                    'id': len(truth) + 1,  # COCO counts from 1
                    'image_id': start + int(image),
                    'category_id': int(batch.digits[image, number]),
                    'bbox': box,
                    'area': box[2] * box[3],
                    'iscrowd': 0,
                }
            )
    coco.dataset = {
        'images': [{'id': i} for i in range(count)],
        'categories': [{'id': c} for c in range(10)],
        'annotations': truth,
    }
    # pycocotools prints its progress.
    with redirect_stdout(StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(np.concatenate(found)), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ('AP', 'AP50', 'AP75')
    return dict(zip(names, evaluation.stats[:3].tolist(), strict=True))


def probe(
    features: FeatureFunction, train: Scenes, test: Scenes, steps: int = PROBE_STEPS
) -> dict[str, float]:
    """Train linear probes on frozen features and score them.

    Args:
        features: The model.
        train: Scenes of the training split.
        test: Scenes of the test split.
        steps: Steps of each probe. Defaults to 600.

    Returns:
        Accuracy for the dominant digit, from the summary and the mean patch,
        and mean IoU of background and ten digits on cells, from patches.
    """
    x, cells = _collect(features, train)
    x_test, cells_test = _collect(features, test)
    side = round((len(cells) / len(x)) ** 0.5)
    found = _classify(x, train.digits[:, 0], x_test, steps)
    semantic = _classify(cells, cell_classes(train, side), cells_test, steps)
    return {
        'probe_top1': (found == test.digits[:, 0]).float().mean().item(),
        'patch_miou': mean_iou(semantic, cell_classes(test, side), 11),
    }


def glyph_iou(features: FeatureFunction, train: Scenes, test: Scenes) -> float:
    """Return the mean IoU of glyphs and background of a linear probe.

    Args:
        features: The model.
        train: Scenes with glyphs of any kind.
        test: Scenes, as many classes as they may have.
    """
    batches = [s._replace(digits=s.digits.clamp(max=0)) for s in (train, test)]
    (_, x), (_, x_test) = (_collect(features, batch) for batch in batches)
    side = round((len(x) / len(train.digits)) ** 0.5)
    wanted, wanted_test = (cell_classes(batch, side) for batch in batches)
    return mean_iou(_classify(x, wanted, x_test, PROBE_STEPS), wanted_test, 2)


def mean_iou(found: Tensor, wanted: Tensor, classes: int) -> float:
    """Return the mean over classes of intersection over union.

    Args:
        found: Predicted classes, (N,) int64.
        wanted: True classes, (N,) int64.
        classes: Number of classes.
    """
    pairs = torch.bincount(wanted * classes + found, minlength=classes**2)
    confusion = pairs.view(classes, classes).double()
    right = confusion.diag()
    union = confusion.sum(0) + confusion.sum(1) - right
    return (right / union).mean().item()


def cell_classes(batch: Scenes, side: int) -> Tensor:
    """Return the class that covers most of each cell, 0 for background.

    Args:
        batch: Scenes.
        side: Number of cells in a row.

    Returns:
        (B * side * side,).
    """
    # Instance 0 is the background and instance i is digit i - 1.
    table = F.pad(batch.digits + 1, (1, 0))
    pixels = table.gather(1, batch.instances.long().flatten(1))
    # (B, H * W) -> (B, 11, H, W)
    classes = F.one_hot(pixels.view(-1, SIZE, SIZE), 11).permute(0, 3, 1, 2)
    covered = F.avg_pool2d(classes.float(), SIZE // side)
    return covered.argmax(1).flatten()


@torch.no_grad()
def _collect(features: FeatureFunction, batch: Scenes) -> tuple[Tensor, Tensor]:
    summaries, cells = [], []
    for images in batch.images.split(_CHUNK):
        summary, patches = features(images)
        summaries.append(torch.cat([summary, patches.mean((2, 3))], 1))
        # (B, C, h, w) -> (B * h * w, C)
        cells.append(patches.permute(0, 2, 3, 1).flatten(0, 2))
    return torch.cat(summaries), torch.cat(cells)


@torch.enable_grad()
def _classify(features: Tensor, classes: Tensor, test: Tensor, steps: int) -> Tensor:
    """Classes of ``test`` by logistic regression on standardised features."""
    mean, std = features.mean(0), features.std(0) + 1e-6
    linear = nn.Linear(features.shape[1], int(classes.max()) + 1)
    # A random start would give other scores in each run.
    for p in linear.parameters():
        nn.init.zeros_(p)
    optimizer = torch.optim.AdamW(linear.parameters(), 1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        pick = torch.randint(len(features), (1024,), generator=generator)
        logits = linear((features[pick] - mean) / std)
        optimizer.zero_grad()
        F.cross_entropy(logits, classes[pick]).backward()
        optimizer.step()
        schedule.step()
    return linear((test - mean) / std).argmax(1)
