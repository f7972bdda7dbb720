"""From samples to the batch of one stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from ..registry import FUNCTIONS


class ImageBatch(TypedDict):
    """A batch of raw images.

    Keys:
        images: RGB in [0, 255], (B, 3, H, W) uint8.
        mask: True on real pixels, (B, H, W) bool; None if there is no
            padding.
        skipped: (name, reason) of every image that could not be used.
    """

    images: Tensor
    mask: Tensor | None
    skipped: list[tuple[str, str]]


@FUNCTIONS.register_module()
def stack_images(samples: Sequence[dict]) -> ImageBatch:
    """Stack images; smaller ones are padded with zeros, bottom and right.

    Args:
        samples: Each with ``image``, (3, h, w) uint8, and ``skipped``.

    Returns:
        The batch, as large as the largest height and width.
    """
    images = [sample['image'] for sample in samples]
    skipped = [entry for sample in samples for entry in sample['skipped']]
    height = max(image.shape[1] for image in images)
    width = max(image.shape[2] for image in images)
    batch = _new_batch(images[0], (len(images), 3, height, width))
    mask = None
    if all(image.shape[1:] == (height, width) for image in images):
        torch.stack(images, out=batch)
    else:
        batch.zero_()
        mask = torch.zeros(len(images), height, width, dtype=torch.bool)
        for i, image in enumerate(images):
            _, h, w = image.shape
            batch[i, :, :h, :w] = image
            mask[i, :h, :w] = True
    return ImageBatch(images=batch, mask=mask, skipped=skipped)


def _new_batch(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Allocate a batch, in a worker right where the parent reads it."""
    if get_worker_info() is None:
        return like.new_empty(shape)
    size = torch.Size(shape).numel() * like.element_size()
    storage = torch.UntypedStorage._new_shared(size, device='cpu')
    return torch.empty(0, dtype=like.dtype).set_(storage).view(shape)
