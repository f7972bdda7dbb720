"""From the last layer's prediction of one image to its results."""

import torch
import torch.nn.functional as F


def resize_masks(masks, canvas, image, original):
    """(N, h, w) logits: to the canvas, cut to the image, to the original."""
    masks = F.interpolate(masks[None], canvas, mode='bilinear', align_corners=False)
    masks = masks[..., : image[0], : image[1]]
    return F.interpolate(masks, original, mode='bilinear', align_corners=False)[0]


def instances(logits, boxes, masks, canvas, image, original, top=100):
    """Scores, labels, boxes (x0, y0, x1, y1) in pixels, boolean masks."""
    masks = resize_masks(masks, canvas, image, original)
    scores = logits.sigmoid()
    ranked = sorted(
        (-scores[q, c].item(), q, c) for q in range(len(scores)) for c in range(scores.shape[1])
    )[:top]
    sx, sy = (original[i] * canvas[i] / image[i] for i in (1, 0))
    out = []
    for score, q, c in ranked:
        binary = masks[q] > 0
        inside = (masks[q].sigmoid() * binary).sum() / (binary.sum() + 1e-6)
        cx, cy, w, h = boxes[q].tolist()
        box = [(cx - w / 2) * sx, (cy - h / 2) * sy, (cx + w / 2) * sx, (cy + h / 2) * sy]
        out.append((-score * inside.item(), c, box, binary))
    final, labels, xyxy, binary = zip(*out, strict=True)
    return (torch.tensor(final), torch.tensor(labels), torch.tensor(xyxy), torch.stack(binary))


def semantic(logits, masks, softmax=False, temperature=0.06):
    """Score map (K, H, W) from masks of the original size."""
    scores = (logits.sigmoid() / temperature).softmax(-1)
    if softmax:
        scores = logits.softmax(-1)[:, :-1]
    return torch.einsum('qc,qhw->chw', scores, masks.sigmoid())


def panoptic(logits, masks, things, temperature=0.06, keep=0.25, share=0.8):
    """Segment map (H, W), 0 = nothing, and (id, label, is thing) of each."""
    probability = logits.sigmoid()
    scores, labels = (probability / temperature).softmax(-1).max(-1)
    kept = probability.amax(-1) > keep
    scores, labels = scores[kept], labels[kept]
    masks = masks[kept].sigmoid()
    segments = torch.zeros(masks.shape[1:], dtype=torch.long)
    found, stuff = [], {}
    if len(masks) == 0:
        return segments, found
    owner = (scores[:, None, None] * masks).argmax(0)
    for q, label in enumerate(labels.tolist()):
        won, whole = owner == q, masks[q] >= 0.5
        area = whole.sum().item()
        both = won & whole
        if won.sum() == 0 or area == 0 or both.sum() == 0:
            continue
        if won.sum().item() / area < share:
            continue
        is_thing = label in things
        if not is_thing and label in stuff:
            segments[both] = stuff[label]
            continue
        found.append((len(found) + 1, label, is_thing))
        segments[both] = len(found)
        if not is_thing:
            stuff[label] = len(found)
    return segments, found
