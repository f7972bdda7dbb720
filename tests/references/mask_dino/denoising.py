"""Noised objects as extra queries; the random numbers come from outside."""

from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import logit


class Noise(NamedTuple):
    """For one image: rows are group by group its objects, (G * M_i, ...)."""

    flip: Tensor  # in [0, 1): below 0.2 the label is replaced
    labels: Tensor  # replacements, in [0, K)
    boxes: Tensor  # (G * M_i, 4) in (-1, 1)


class Denoising(NamedTuple):
    content: Tensor  # (B, G * M, C)
    logits: Tensor  # (B, G * M, 4)
    blocked: Tensor  # (G * M + Nq,) * 2, True = may not look
    slots: list  # per image (object, slot) pairs
    groups: int


def count_groups(targets, number=100):
    most = max(len(t.labels) for t in targets)
    return 0 if most == 0 else number // most


def noisy_labels(labels, noise):
    return torch.where(noise.flip < 0.2, noise.labels, labels)


def noisy_boxes(boxes, noise, scale=0.4):
    reach = torch.cat((boxes[:, 2:] / 2, boxes[:, 2:]), -1)
    return (boxes + noise.boxes * scale * reach).clamp(0, 1)


def denoise(targets, noises, label_enc, queries, number=100):
    """None if there are no objects, or more than ``number`` in an image."""
    groups = count_groups(targets, number)
    if groups == 0:
        return None
    most = max(len(t.labels) for t in targets)
    size, b = groups * most, len(targets)
    weight = label_enc.weight
    content = weight.new_zeros(b, size, weight.shape[1])
    logits = weight.new_zeros(b, size, 4)
    slots = []
    for i, (target, noise) in enumerate(zip(targets, noises, strict=True)):
        labels = noisy_labels(target.labels.repeat(groups), noise)
        boxes = logit(noisy_boxes(target.boxes.repeat(groups, 1), noise))
        pairs = []
        for group in range(groups):
            for t in range(len(target.labels)):
                row = group * len(target.labels) + t
                slot = group * most + t
                content[i, slot] = weight[labels[row]]
                logits[i, slot] = boxes[row]
                pairs.append((t, slot))
        slots.append(pairs)
    blocked = torch.zeros(size + queries, size + queries, dtype=torch.bool)
    blocked[size:, :size] = True
    for row in range(size):
        for column in range(size):
            blocked[row, column] = row // most != column // most
    return Denoising(content, logits, blocked, slots, groups)
