"""Losses of one prediction set, and the 105 scalars of a step."""

import torch
import torch.nn.functional as F

from .boxes import giou
from .matcher import match, sample
from .predictor import Prediction

WEIGHTS = {'class': 4.0, 'bbox': 5.0, 'giou': 2.0, 'mask': 5.0, 'dice': 5.0}


def focal_sum(logits, onehot):
    p = logits.sigmoid()
    hit = 0.25 * (1 - p) ** 2 * -F.logsigmoid(logits)
    miss = 0.75 * p**2 * -F.logsigmoid(-logits)
    return torch.where(onehot, hit, miss).sum()


def uncertain_points(mask, rand, points):
    """Points (P, 2) for one pair's mask logits (h, w)."""
    many, kept = 3 * points, int(0.75 * points)
    drawn = rand(many, 2).to(mask.dtype)
    values = sample(mask[None], drawn[None])[0]
    order = values.abs().argsort()[:kept]
    fresh = rand(points - kept, 2).to(mask.dtype)
    return torch.cat((drawn[order], fresh))


def losses(prediction, targets, pairs, normaliser, rand, points=12544):
    """The five weighted losses; ``pairs`` are (query, object) per image."""
    logits, boxes, masks = prediction
    onehot = torch.zeros_like(logits, dtype=torch.bool)
    out = {name: (boxes.sum() + masks.sum()) * 0 for name in WEIGHTS}
    for i, target in enumerate(targets):
        for query, thing in pairs[i]:
            onehot[i, query, target.labels[thing]] = True
            box, wanted = boxes[i, query], target.boxes[thing]
            out['bbox'] = out['bbox'] + (box - wanted).abs().sum()
            out['giou'] = out['giou'] + 1 - giou(box, wanted)
            mask = masks[i, query]
            full = target.masks[thing].to(mask.dtype)
            where = uncertain_points(mask.detach(), rand, points)[None]
            x, t = sample(mask[None], where)[0], sample(full[None], where)[0]
            bce = F.binary_cross_entropy_with_logits(x, t)
            p = x.sigmoid()
            dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
            out['mask'] = out['mask'] + bce
            out['dice'] = out['dice'] + dice
    out['class'] = focal_sum(logits, onehot) + out['class']
    return {name: WEIGHTS[name] * x / normaliser for name, x in out.items()}


def step_losses(output, targets, denoising, matcher_points, rand, ranks=None, points=12544):
    """All scalars of a step as ``{set: {term: loss}}``.

    ``ranks``: objects on every rank; None means this rank alone.
    ``matcher_points(b)`` gives (B, P, 2), ``rand(n, 2)`` uniform numbers.
    """
    ranks = ranks or [sum(len(t.labels) for t in targets)]
    normaliser = max(1.0, sum(ranks) / len(ranks))
    size = 0 if denoising is None else denoising.content.shape[1]
    out = {}

    def matched(name, prediction):
        where = matcher_points(len(targets)).to(prediction.masks.dtype)
        pairs = match(prediction, targets, where)
        out[name] = losses(prediction, targets, pairs, normaliser, rand, points)

    for i, prediction in enumerate(output.sets):
        matched(i, Prediction(*(x[:, size:] for x in prediction)))
    if output.intermediate is not None:
        matched('intermediate', output.intermediate)
    for i, prediction in enumerate(output.sets):
        if i == 0 and output.intermediate is None:
            continue
        if denoising is None:
            out['dn', i] = {n: prediction.boxes.sum() * 0 for n in WEIGHTS}
            continue
        part = Prediction(*(x[:, :size] for x in prediction))
        pairs = [[(slot, t) for t, slot in image] for image in denoising.slots]
        out['dn', i] = losses(part, targets, pairs, normaliser * denoising.groups, rand, points)
    return out
