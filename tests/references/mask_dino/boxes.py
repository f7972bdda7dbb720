"""Boxes (cx, cy, w, h), their logits, overlaps, and boxes of masks."""

import torch

EPS = 1e-5


def logit(x):
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=EPS) / (1 - x).clamp(min=EPS))


def corners(boxes):
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), -1)


def giou(a, b):
    """Generalised overlap of two boxes of four corners each, elementwise."""
    ax0, ay0, ax1, ay1 = corners(a).unbind(-1)
    bx0, by0, bx1, by1 = corners(b).unbind(-1)
    width = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0)
    height = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(min=0)
    inter = width * height
    area_a, area_b = (ax1 - ax0) * (ay1 - ay0), (bx1 - bx0) * (by1 - by0)
    union = area_a + area_b - inter
    enclosing = (torch.maximum(ax1, bx1) - torch.minimum(ax0, bx0)) * (
        torch.maximum(ay1, by1) - torch.minimum(ay0, by0)
    )
    return inter / (union + 1e-6) - (enclosing - union) / (enclosing + 1e-6)


def box_of_mask(mask, kind):
    """Box of one boolean mask (h, w), over the map's size."""
    h, w = mask.shape
    # what an empty mask has: 0, 0, 0, 0 under `bitmask`; under `mask2box`
    # corners that end in centre 1 and size 0 when clamped
    if not mask.any():
        empty = [0.0, 0, 0, 0] if kind == 'bitmask' else [1.0, 1, 0, 0]
        return torch.tensor(empty, dtype=torch.float64)
    rows = mask.any(1).nonzero().flatten().tolist()
    columns = mask.any(0).nonzero().flatten().tolist()
    extra = {'bitmask': 1, 'mask2box': 0}[kind]
    x0, y0 = columns[0] / w, rows[0] / h
    x1, y1 = (columns[-1] + extra) / w, (rows[-1] + extra) / h
    box = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
    return torch.tensor(box, dtype=torch.float64)


def logits_of_masks(mask_logits, kind):
    """(B, N, h, w) mask logits -> (B, N, 4) box logits."""
    binary = mask_logits > 0
    boxes = [torch.stack([box_of_mask(mask, kind) for mask in image]) for image in binary]
    return logit(torch.stack(boxes).to(mask_logits.dtype))
