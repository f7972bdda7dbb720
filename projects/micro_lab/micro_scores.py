"""How good the micro teachers are, on scenes of the test split."""

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
from .scene_pool import SIZE, Pool, PoolBatch

PROMPTS = [text for text in CAPTIONS if 'colour' not in text]
# images (B, H, W, 3) uint8 to a summary (B, D) and a map (B, C, h, w)
Look = Callable[[Tensor], tuple[Tensor, Tensor]]
# the same to what was found in each of the ten digits' names
Find = Callable[[Tensor], list[Boxes]]
_CHUNK = 250
_PROBE_STEPS = 600


def look(encode: Callable[[Tensor], Features]) -> Look:
    """Ask a teacher, or what stands in for it, as the scores do.

    Args:
        encode: Raw images (B, 3, H, W) to features with a summary.
    """

    def ask(images: Tensor) -> tuple[Tensor, Tensor]:
        features = encode(images.permute(0, 3, 1, 2))
        assert features.summary is not None
        return features.summary, features.maps[-1]

    return ask


@torch.no_grad()
def zero_shot(
    look: Look,
    encode_text: Callable[[Tensor], Tensor],
    tokenizer: Callable[[list[str]], Tensor],
    batch: PoolBatch,
) -> dict[str, float]:
    """Top-1 accuracy of a CLIP for the dominant digit.

    Args:
        look: Its image tower.
        encode_text: Its text tower.
        tokenizer: Texts to token ids.
        batch: Scenes.
    """
    columns = []
    for word in DIGIT_WORDS:
        texts = tokenizer([text.format(digit=word) for text in PROMPTS])
        mean = F.normalize(encode_text(texts), dim=1).mean(0)
        columns.append(F.normalize(mean, dim=0))
    classifier = torch.stack(columns, 1)
    found = torch.cat(
        [
            (look(images)[0] @ classifier).argmax(1)
            for images in batch.images.split(_CHUNK)
        ]
    )
    right = found == batch.digits[:, 0]
    alone = (batch.digits >= 0).sum(1) == 1
    return {
        'zero_shot_top1': right.float().mean().item(),
        'zero_shot_top1_one_digit': right[alone].float().mean().item(),
    }


@torch.no_grad()
def average_precision(find: Find, pool: Pool, count: int) -> dict[str, float]:
    """COCO's AP of a detector that is asked for all ten digits.

    Args:
        find: The detector.
        pool: Scenes.
        count: How many of them, from the first.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    coco, found = COCO(), []
    truth: list[dict[str, Any]] = []
    for start in range(0, count, _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, count))
        batch = pool.batch(numbers)
        for image, boxes in enumerate(find(batch.images), start):
            found.append(_rows(image, boxes))
        truth += _annotations(batch, start)
    coco.dataset = {
        'images': [{'id': i} for i in range(count)],
        'categories': [{'id': c} for c in range(10)],
        'annotations': [{'id': i + 1, **a} for i, a in enumerate(truth)],
    }
    with redirect_stdout(StringIO()):
        coco.createIndex()
        evaluation = COCOeval(
            coco, coco.loadRes(np.concatenate(found)), 'bbox'
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ('AP', 'AP50', 'AP75')
    return dict(zip(names, evaluation.stats[:3].tolist(), strict=True))


def _rows(image: int, found: Boxes) -> np.ndarray:
    """Image, box x y w h, score and class of what was found."""
    boxes = box_convert(found.boxes * SIZE, 'xyxy', 'xywh')
    columns = [
        torch.full_like(found.scores, image)[:, None],
        boxes,
        found.scores[:, None],
        found.labels[:, None],
    ]
    return torch.cat(columns, 1).numpy()


def _annotations(batch: PoolBatch, first: int) -> list[dict[str, Any]]:
    return [
        {
            'image_id': first + int(image),
            'category_id': int(batch.digits[image, number]),
            'bbox': (box := _xywh(batch.boxes[image, number])),
            'area': box[2] * box[3],
            'iscrowd': 0,
        }
        for image, number in (batch.digits >= 0).nonzero()
    ]


def _xywh(box: Tensor) -> list[float]:
    return box_convert(box.float(), 'xyxy', 'xywh').tolist()


def probe(look: Look, train: PoolBatch, test: PoolBatch) -> dict[str, float]:
    """Linear probes of frozen features.

    Args:
        look: The model.
        train: Scenes of the training split.
        test: Scenes of the test split.

    Returns:
        Accuracy for the dominant digit, from summary and mean patch; mean
        IoU of background and ten digits on cells, from patches.
    """
    (x, cells), (x_test, cells_test) = (
        _collect(look, batch) for batch in (train, test)
    )
    side = round((len(cells) / len(x)) ** 0.5)
    found = _classify(x, train.digits[:, 0], x_test)
    semantic = _classify(cells, cell_classes(train, side), cells_test)
    return {
        'probe_top1': (found == test.digits[:, 0]).float().mean().item(),
        'patch_miou': mean_iou(semantic, cell_classes(test, side), 11),
    }


def mean_iou(found: Tensor, wanted: Tensor, classes: int) -> float:
    """Mean over classes of intersection over union, both (N,) int64."""
    pairs = torch.bincount(wanted * classes + found, minlength=classes**2)
    confusion = pairs.view(classes, classes).double()
    right = confusion.diag()
    union = confusion.sum(0) + confusion.sum(1) - right
    return (right / union).mean().item()


def cell_classes(batch: PoolBatch, side: int) -> Tensor:
    """The class that covers most of each cell, 0 for background.

    Args:
        batch: Scenes.
        side: Cells in a row.

    Returns:
        (B * side * side,).
    """
    table = F.pad(batch.digits + 1, (1, 0))
    pixels = table.gather(1, batch.instances.long().flatten(1))
    classes = F.one_hot(pixels.view(-1, SIZE, SIZE), 11).permute(0, 3, 1, 2)
    covered = F.avg_pool2d(classes.float(), SIZE // side)
    return covered.argmax(1).flatten()


@torch.no_grad()
def _collect(look: Look, batch: PoolBatch) -> tuple[Tensor, Tensor]:
    summaries, cells = [], []
    for images in batch.images.split(_CHUNK):
        summary, patches = look(images)
        summaries.append(torch.cat([summary, patches.mean((2, 3))], 1))
        cells.append(patches.permute(0, 2, 3, 1).flatten(0, 2))
    return torch.cat(summaries), torch.cat(cells)


@torch.enable_grad()
def _classify(features: Tensor, classes: Tensor, test: Tensor) -> Tensor:
    """Logistic regression on standardised features, by its classes of test."""
    mean, std = features.mean(0), features.std(0) + 1e-6
    linear = nn.Linear(features.shape[1], int(classes.max()) + 1)
    nn.init.zeros_(linear.weight)
    optimizer = torch.optim.AdamW(linear.parameters(), 1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, _PROBE_STEPS
    )
    generator = torch.Generator().manual_seed(0)
    for _ in range(_PROBE_STEPS):
        pick = torch.randint(len(features), (1024,), generator=generator)
        logits = linear((features[pick] - mean) / std)
        optimizer.zero_grad()
        F.cross_entropy(logits, classes[pick]).backward()
        optimizer.step()
        schedule.step()
    return linear((test - mean) / std).argmax(1)
