"""Hungarian matching of one image's predictions with its objects."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .boxes import giou


class Target(NamedTuple):
    labels: Tensor  # (M,)
    boxes: Tensor  # (M, 4), of the padded canvas
    masks: Tensor  # (M, Hp, Wp), 0 or 1


def sample(masks, points):
    """(N, h, w) at points (N, P, 2) as (x, y) in [0, 1] -> (N, P)."""
    grid = 2 * points[:, None] - 1  # (N, 1, P, 2)
    return F.grid_sample(masks[:, None], grid, align_corners=False)[:, 0, 0]


def cost_matrix(logits, boxes, masks, target, points):
    """(N, K), (N, 4), (N, h, w); points (P, 2) -> costs (N, M)."""
    p, cost = (logits.sigmoid(), logits.new_zeros(len(logits), len(target.labels)))
    everywhere = points.expand(len(masks), -1, -1)
    predicted = sample(masks, everywhere)
    wanted = sample(target.masks.to(masks.dtype), points.expand(len(target.masks), -1, -1))
    for j, label in enumerate(target.labels):
        pj, t = p[:, label], wanted[j]
        hit = 0.25 * (1 - pj) ** 2 * -torch.log(pj + 1e-8)
        miss = 0.75 * pj**2 * -torch.log(1 - pj + 1e-8)
        l1 = (boxes - target.boxes[j]).abs().sum(-1)
        overlap = giou(boxes, target.boxes[j].expand_as(boxes))
        bce = (-t * F.logsigmoid(predicted) - (1 - t) * F.logsigmoid(-predicted)).mean(-1)
        q = predicted.sigmoid()
        dice = 1 - (2 * (q * t).sum(-1) + 1) / (q.sum(-1) + t.sum() + 1)
        cost[:, j] = 4 * (hit - miss) + 5 * l1 - 2 * overlap + 5 * bce + 5 * dice
    return cost


def match(prediction, targets, points):
    """Pairs (query, object) for every image; points (B, P, 2)."""
    pairs = []
    for i, target in enumerate(targets):
        cost = cost_matrix(
            prediction.logits[i], prediction.boxes[i], prediction.masks[i], target, points[i]
        )
        rows, columns = linear_sum_assignment(cost.detach().numpy())
        pairs.append(list(zip(rows.tolist(), columns.tolist(), strict=True)))
    return pairs
