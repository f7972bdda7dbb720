"""Denoising: noised ground truth -> extra queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.models.layers import inverse_sigmoid
from mmengine.model import BaseModule
from torch import Tensor, nn

from .matcher import Pairs
from .targets import Target


class DenoisingQueries(NamedTuple):
    """Noised ground truth that the decoder restores next to its own queries.

    Args:
        content: Embeddings of the noised labels, (B, D, C), D = groups *
            largest object count of the batch.
        references: Logits of the noised boxes, (B, D, 4).
        blocked: Self-attention mask of denoising and matching queries, (D +
            N, D + N) bool, True where a row does not attend to a column.
        pairs: Slot and object of every noised object, one for each image.
        groups: How often every object appears; 0 without queries.
    """

    content: Tensor
    references: Tensor
    blocked: Tensor
    pairs: list[Pairs]
    groups: int


class Noise(NamedTuple):
    """The random numbers of one step, T objects in the batch, G groups.

    Args:
        swap: Which labels change, (G, T) bool.
        labels: What they change to, (G, T) int64.
        boxes: Uniform in (-1, 1), (G, T, 4).
    """

    swap: Tensor
    labels: Tensor
    boxes: Tensor


class Denoising(BaseModule):
    """Queries that start from noised labels and boxes.

    Mask DINO (https://arxiv.org/abs/2206.02777), section 3.4; DN-DETR
    (https://arxiv.org/abs/2203.01305). Unlike in DINO there are no negative
    queries, the noise is on centre and size, and the other queries attend
    to slots that an image leaves empty.

    Args:
        num_classes: Classes of the labels.
        embed_dims: Channels C.
        num_queries: At most so many queries D are made, in groups that each
            hold every object once. Defaults to 100.
        noise_scale: Centres move by up to this share of half the size,
            sizes change by up to this share, and half this share of the
            labels is redrawn. Defaults to 0.4.
    """

    def __init__(
        self, num_classes: int, embed_dims: int, num_queries: int = 100, noise_scale: float = 0.4
    ) -> None:
        super().__init__()
        self.num_queries = num_queries
        self.noise_scale = noise_scale
        self.label_embedding = nn.Embedding(num_classes, embed_dims)

    def draw(self, targets: Sequence[Target], groups: int) -> Noise:
        """Draw the random numbers of one step.

        Args:
            targets: Objects of each image.
            groups: G.
        """
        boxes = torch.cat([target.boxes for target in targets])
        shape = (groups, len(boxes))
        rand = torch.rand(*shape, device=boxes.device)
        return Noise(
            rand < self.noise_scale / 2,
            torch.randint(self.label_embedding.num_embeddings, shape, device=boxes.device),
            torch.rand(*shape, 4, device=boxes.device) * 2 - 1,
        )

    def forward(
        self, targets: Sequence[Target], num_matching: int, noise: Noise | None = None
    ) -> DenoisingQueries:
        """Make the queries of one step.

        Args:
            targets: Objects of each image.
            num_matching: Matching queries N that follow in the decoder.
            noise: Random numbers, objects in the order of ``targets``; None
                draws them.

        Returns:
            No group, and so no query, if no image has objects or one has
            more than ``num_queries``; the embedding still gets a gradient,
            as data-parallel training requires.
        """
        counts = [len(target.labels) for target in targets]
        most = max(1, *counts)
        groups = self.num_queries // most if any(counts) else 0
        noise = noise or self.draw(targets, groups)
        labels = torch.cat([target.labels for target in targets])
        boxes = torch.cat([target.boxes for target in targets])
        # (T,) labels of all images, G times, -> (G, T, C)
        content = self.label_embedding(torch.where(noise.swap, noise.labels, labels))
        references = inverse_sigmoid(noised_boxes(boxes, noise.boxes * self.noise_scale))
        slots = [torch.arange(count, device=boxes.device) for count in counts]
        return DenoisingQueries(
            scatter_slots(content, slots, most),
            scatter_slots(references, slots, most),
            block_groups(groups, most, num_matching, boxes.device),
            [denoising_pairs(slot, groups, most) for slot in slots],
            groups,
        )


def noised_boxes(boxes: Tensor, shifts: Tensor) -> Tensor:
    """Shift centres and sizes of boxes (cx, cy, w, h).

    Args:
        boxes: (T, 4) in [0, 1].
        shifts: Of centres in half sizes, of sizes in sizes, (G, T, 4).

    Returns:
        (G, T, 4), clamped to [0, 1].
    """
    sizes = boxes[:, 2:]
    reach = torch.cat((sizes / 2, sizes), -1)
    return (boxes + shifts * reach).clamp(0, 1)


def scatter_slots(values: Tensor, slots: Sequence[Tensor], most: int) -> Tensor:
    """Put the objects of all images into their slots of every group.

    Args:
        values: (G, T, C), objects image by image.
        slots: Slots of each image's objects, each (M_i,).
        most: Slots of a group.

    Returns:
        (B, G * most, C), zero where an image has no object.
    """
    groups, _, channels = values.shape
    out = values.new_zeros(len(slots), groups, most, channels)
    image = torch.cat([torch.full_like(slot, i) for i, slot in enumerate(slots)])
    # (G, T, C) -> (T, G, C), into (B, G, most, C) at (image, :, slot)
    out[image, :, torch.cat(list(slots))] = values.transpose(0, 1)
    return out.flatten(1, 2)  # (B, G, most, C) -> (B, G * most, C)


def block_groups(groups: int, most: int, num_matching: int, device: torch.device) -> Tensor:
    """Mask of the self-attention, True for blocked.

    Denoising queries attend to their group and to the matching queries;
    these attend to each other only, because the denoising queries hold the
    ground truth.

    Args:
        groups: G.
        most: Slots of a group.
        num_matching: Matching queries N.
        device: Device of the mask.

    Returns:
        (G * most + N, G * most + N) bool.
    """
    count = groups * most
    group = torch.arange(count + num_matching, device=device) // most
    matching = torch.arange(count + num_matching, device=device) >= count
    # row's group against column's: (D + N, 1) != (D + N,)
    other = group[:, None] != group
    return ~matching & (matching[:, None] | other)


def denoising_pairs(slots: Tensor, groups: int, most: int) -> Pairs:
    """Slot and object of every noised object of one image.

    Args:
        slots: Slots of its objects in a group, (M,).
        groups: G.
        most: Slots of a group.
    """
    starts = torch.arange(groups, device=slots.device) * most
    # (M, 1) + (G,) -> (M * G,), the G pairs of an object next to each other
    return Pairs((slots[:, None] + starts).flatten(), slots.repeat_interleave(groups))
