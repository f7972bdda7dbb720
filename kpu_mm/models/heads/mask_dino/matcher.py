"""Matcher: predictions <-> ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.ops import point_sample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .deformable import full_precision
from .giou import generalised_iou
from .structures import Pairs, Predictions, Target


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
    """What it would cost to match each query with each object of one image.

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
    iou = generalised_iou(
        bbox_cxcywh_to_xyxy(boxes)[:, :, None],
        bbox_cxcywh_to_xyxy(target.boxes),
    )
    # The dot product with a mask query is linear, as sampling is: sampled
    # features give the same logits as sampled masks, at fewer places.
    sets, count = points.shape[:2]
    places = points.flatten(0, 1)[None]
    features = point_sample(mask_features.float()[None], places)[0]
    features = features.unflatten(1, (sets, count)).transpose(0, 1)
    masks = predictions.mask_queries.float() @ features  # (L, N, P)
    objects = point_sample(target.masks.float()[None], places)[0]
    objects = objects.unflatten(1, (sets, count)).permute(1, 2, 0)
    return (
        weights.cls * focal_cost(logits)
        + weights.bbox * torch.cdist(boxes, target.boxes, p=1)
        - weights.iou * iou
        + weights.mask * cross_entropy_cost(masks, objects)
        + weights.dice * dice_cost(masks, objects)
    )


def focal_cost(logits: Tensor) -> Tensor:
    """Focal loss as an object minus focal loss as background.

    Args:
        logits: Of the object's class, any shape.
    """
    score = logits.sigmoid()
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


class HungarianMatcher:
    """One-to-one matching of least cost, for all prediction sets at once.

    DETR (https://arxiv.org/abs/2005.12872).

    Args:
        weights: Of the five cost terms.
        num_points: Points at which masks are compared. Defaults to 12544.
    """

    def __init__(self, weights: TermWeights, num_points: int = 12544) -> None:
        self.weights = weights
        self.num_points = num_points

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
        stacked = Predictions(
            *(torch.stack(parts) for parts in zip(*sets, strict=True))
        )
        with full_precision(mask_features):
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
    """Match at least cost, with one copy to the host and one back.

    Args:
        costs: Of each image, (L, N, M_i).

    Returns:
        For each of the L sets, the pairs of each image.

    Raises:
        ValueError: If a cost is not a finite number.
    """
    device = costs[0].device
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
    split = [
        Pairs(*part) for part in indices.split([p.shape[1] for p in pairs], 1)
    ]
    images = len(costs)
    return [split[i : i + images] for i in range(0, len(split), images)]
