"""Matcher: predictions <-> objects of the ground truth, at least cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.ops import point_sample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .predictor import Predictions
from .targets import Target

# as in https://github.com/IDEA-Research/MaskDINO
EPS = 1e-6


class Pairs(NamedTuple):
    """Matched queries and objects of one image.

    Args:
        queries: (P,) int64.
        objects: (P,) int64, pairs of one object next to each other.
    """

    queries: Tensor
    objects: Tensor


class TermWeights(NamedTuple):
    """Weights of the five terms, in costs and losses alike.

    Args:
        cls: Classification. Defaults to 4.0.
        bbox: L1 distance of boxes. Defaults to 5.0.
        iou: Generalised IoU of boxes. Defaults to 2.0.
        mask: Cross-entropy of masks. Defaults to 5.0.
        dice: Dice of masks. Defaults to 5.0.
    """

    cls: float = 4.0
    bbox: float = 5.0
    iou: float = 2.0
    mask: float = 5.0
    dice: float = 5.0


def match_costs(
    predictions: Predictions,
    mask_features: Tensor,
    target: Target,
    points: Tensor,
    weights: TermWeights,
) -> Tensor:
    """Costs of matching each query with each object of one image.

    Args:
        predictions: L prediction sets of the image in place of a batch.
        mask_features: (C, h, w).
        target: The image's objects.
        points: Where masks are compared, (L, P, 2) as (x, y) in [0, 1].
        weights: Of the five terms.

    Returns:
        (L, N, M).
    """
    logits = predictions.logits.float()[..., target.labels]
    boxes = predictions.boxes.float()
    # (L, N, 1, 4) with (M, 4) -> (L, N, M)
    iou = generalised_iou(bbox_cxcywh_to_xyxy(boxes)[:, :, None], bbox_cxcywh_to_xyxy(target.boxes))
    # Sampling and the dot product with a mask query are both linear: sampled
    # features give the same logits as sampled masks, and N masks of (h, w)
    # need not be rendered.
    sets, count = points.shape[:2]
    places = points.flatten(0, 1)[None]  # (L, P, 2) -> (1, L * P, 2)
    features = point_sample(mask_features.float()[None], places)[0]
    # (C, L * P) -> (L, C, P)
    features = features.unflatten(1, (sets, count)).transpose(0, 1)
    masks = predictions.mask_queries.float() @ features  # (L, N, P)
    objects = point_sample(target.masks.float()[None], places)[0]
    # (M, L * P) -> (L, P, M)
    objects = objects.unflatten(1, (sets, count)).permute(1, 2, 0)
    return (
        weights.cls * focal_cost(logits)
        + weights.bbox * torch.cdist(boxes, target.boxes, p=1)
        - weights.iou * iou
        + weights.mask * cross_entropy_cost(masks, objects)
        + weights.dice * dice_cost(masks, objects)
    )


def generalised_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """GIoU (https://arxiv.org/abs/1902.09630) of boxes (x1, y1, x2, y2).

    Mask DINO was trained with a stabiliser that is added to unions and
    enclosing areas. MMDetection clamps them at it instead, which gives other
    values for boxes relative to the canvas, of areas far below 1.

    Args:
        boxes: (..., 4).
        others: (..., 4), broadcast with ``boxes``.

    Returns:
        (...).
    """

    def area(low: Tensor, high: Tensor) -> Tensor:
        return (high - low).clamp(min=0).prod(-1)

    low, high = boxes[..., :2], boxes[..., 2:]
    other_low, other_high = others[..., :2], others[..., 2:]
    inter = area(low.maximum(other_low), high.minimum(other_high))
    union = area(low, high) + area(other_low, other_high) - inter
    enclosing = area(low.minimum(other_low), high.maximum(other_high))
    return inter / (union + EPS) - (enclosing - union) / (enclosing + EPS)


def focal_cost(logits: Tensor) -> Tensor:
    """Focal loss as an object minus focal loss as background.

    Args:
        logits: Of the object's class, any shape.
    """
    score = logits.sigmoid()
    # alpha 0.25 and gamma 2, as in the loss
    positive = -0.25 * (1 - score) ** 2 * (score + 1e-8).log()
    negative = -0.75 * score**2 * (1 - score + 1e-8).log()
    return positive - negative


def cross_entropy_cost(masks: Tensor, objects: Tensor) -> Tensor:
    """Mean binary cross-entropy of each mask with each object.

    Args:
        masks: Logits at points, (L, N, P).
        objects: Values at the same points, (L, P, M).

    Returns:
        (L, N, M).
    """
    # -t log s(x) - (1 - t) log s(-x) = softplus(x) - t x
    background = F.softplus(masks).mean(-1, keepdim=True)
    return background - masks @ objects / masks.shape[-1]


def dice_cost(masks: Tensor, objects: Tensor) -> Tensor:
    """Dice loss of each mask with each object, smoothed by 1.

    Args:
        masks: Logits at points, (L, N, P).
        objects: Values at the same points, (L, P, M).

    Returns:
        (L, N, M).
    """
    scores = masks.sigmoid()
    both = scores.sum(-1, keepdim=True) + objects.sum(1, keepdim=True)
    return 1 - (2 * scores @ objects + 1) / (both + 1)


@dataclass
class HungarianMatcher:
    """One-to-one matching of least cost, for all prediction sets at once.

    DETR (https://arxiv.org/abs/2005.12872).

    Args:
        weights: Of the five cost terms.
        num_points: Points at which masks are compared. Defaults to 12544.
    """

    weights: TermWeights
    num_points: int = 12544

    @torch.no_grad()
    def __call__(
        self,
        sets: Sequence[Predictions],
        mask_features: Tensor,
        targets: Sequence[Target],
        points: Tensor | None = None,
    ) -> list[list[Pairs]]:
        """Match every prediction set with every image's objects.

        Args:
            sets: L prediction sets.
            mask_features: (B, C, h, w).
            targets: Objects of each image.
            points: (L, B, P, 2) in [0, 1]; None draws them.

        Returns:
            For each set, the pairs of each image.

        Raises:
            ValueError: If a prediction is not a finite number.
        """
        shape = (len(sets), len(targets), self.num_points, 2)
        if points is None:
            points = torch.rand(shape, device=mask_features.device)
        # L sets of (B, N, ...) -> (L, B, N, ...)
        stacked = Predictions(*(torch.stack(parts) for parts in zip(*sets, strict=True)))
        with torch.autocast(mask_features.device.type, enabled=False):
            costs = [
                match_costs(
                    Predictions(*(part[:, i] for part in stacked)),
                    mask_features[i],
                    target,
                    points[:, i],
                    self.weights,
                )
                for i, target in enumerate(targets)
            ]
        return solve(costs)


def solve(costs: Sequence[Tensor]) -> list[list[Pairs]]:
    """Match at least cost, with one copy to the CPU and one back.

    Args:
        costs: Of each image, (L, N, M_i).

    Returns:
        For each of the L sets, the pairs of each image.

    Raises:
        ValueError: If a cost is not a finite number.
    """
    device = costs[0].device
    # Images have different numbers of objects: (L, N, sum of M_i).
    host = torch.cat(list(costs), -1).cpu()
    if not host.isfinite().all():
        raise ValueError(
            'the matching cost is not finite: the model has diverged; lower '
            'the learning rate, or check the images for corrupt values.'
        )
    parts = host.split([cost.shape[-1] for cost in costs], -1)
    pairs = [
        torch.from_numpy(np.stack(linear_sum_assignment(part[i].numpy())))
        for i in range(len(host))
        for part in parts
    ]
    # (2, all pairs): one copy
    indices = torch.cat(pairs, 1).to(device)
    split = [Pairs(*part) for part in indices.split([p.shape[1] for p in pairs], 1)]
    images = len(costs)
    return [split[i : i + images] for i in range(0, len(split), images)]
