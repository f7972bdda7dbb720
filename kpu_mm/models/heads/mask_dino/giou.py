"""Generalised IoU with the stabiliser that Mask DINO was trained with."""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-6


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def generalised_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """GIoU (https://arxiv.org/abs/1902.09630) of boxes (x1, y1, x2, y2).

    MMDetection clamps unions and enclosing areas at the stabiliser, which
    is added here: for boxes over the canvas, of areas far below 1, the
    values differ.

    Args:
        boxes: (..., 4).
        others: (..., 4), broadcast with ``boxes``.

    Returns:
        (...).
    """
    low = torch.maximum(boxes[..., :2], others[..., :2])
    high = torch.minimum(boxes[..., 2:], others[..., 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    union = _area(boxes) + _area(others) - inter
    low = torch.minimum(boxes[..., :2], others[..., :2])
    high = torch.maximum(boxes[..., 2:], others[..., 2:])
    enclosing = (high - low).clamp(min=0).prod(-1)
    return inter / (union + EPS) - (enclosing - union) / (enclosing + EPS)
