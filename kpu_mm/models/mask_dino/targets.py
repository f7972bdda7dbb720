"""Targets: ground truth of a data sample -> objects of an image."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmengine.structures import InstanceData
from torch import Tensor

IGNORED = 255  # the label of unlabelled pixels in MMSegmentation's maps


class Target(NamedTuple):
    """The objects of one image.

    Args:
        labels: (M,) int64.
        boxes: (cx, cy, w, h) over the canvas, (M, 4).
        masks: (M, H, W) bool.
    """

    labels: Tensor
    boxes: Tensor
    masks: Tensor


def make_target(sample: Any, num_things: int, num_stuff: int, device: torch.device) -> Target:
    """Things of ``gt_instances``, then stuff of ``gt_sem_seg``.

    Boxes are relative to the canvas, ``batch_input_shape``. Those of stuff
    are drawn around its mask.

    Args:
        sample: A ``DetDataSample``.
        num_things: Classes below this one are things; 0 reads no instances.
        num_stuff: Classes after them; 0 reads no segmentation map.
        device: Device of the tensors.

    Raises:
        ValueError: If the sample lacks boxes, masks or the segmentation map
            that the classes call for, has a label beyond them, or masks of
            another size than the image.
    """
    parts = []
    if num_things:
        parts.append(_things(sample, device))
    if num_stuff:
        parts.append(_stuff(sample, num_things, num_stuff, device))
    # things and stuff -> labels, boxes and masks of both
    target = Target(*(torch.cat(part) for part in zip(*parts, strict=True)))
    num_classes = num_things + num_stuff
    if len(target.labels) and target.labels.max() >= num_classes:
        raise ValueError(
            f'{_name(sample)} has the label {int(target.labels.max())}, the head has {num_classes} '
            f'classes (0 to {num_classes - 1}): set num_things_classes and num_stuff_classes to '
            'those of the dataset.'
        )
    return target


def mask_to_box(masks: Tensor, box_init: str) -> Tensor:
    """Boxes (cx, cy, w, h) of binary masks, relative to their grid.

    Mask DINO (https://arxiv.org/abs/2206.02777), section 3.5. 'bitmask'
    includes the last row and column, and an empty mask gives zeros.
    'mask2box' does neither: an empty mask gets a far centre and a negative
    size, which become 1 and 0 once clamped.

    Args:
        masks: (..., h, w) bool.
        box_init: 'bitmask' or 'mask2box'.

    Returns:
        (..., 4) float32.
    """
    # A quarter, so that the sum of two is still finite.
    far = torch.finfo(torch.float32).max / 4
    sides = []
    # (..., h, w) -> occupied columns (..., w), then rows (..., h)
    for occupied in (masks.any(-2), masks.any(-1)):
        size = occupied.shape[-1]
        cells = torch.arange(size, dtype=torch.float32, device=masks.device).expand_as(occupied)
        low = cells.masked_fill(~occupied, far).amin(-1)
        high = cells.masked_fill(~occupied, 0).amax(-1)
        if box_init == 'bitmask':
            found = occupied.any(-1)
            low = low.where(found, 0)
            high = (high + 1).where(found, 0)
        sides.append((low / size, high / size))
    (left, right), (top, bottom) = sides
    return torch.stack(((left + right) / 2, (top + bottom) / 2, right - left, bottom - top), -1)


def _things(sample: Any, device: torch.device) -> Target:
    found = sample.get('gt_instances', InstanceData())
    wanted = ('bboxes', 'labels', 'masks')
    missing = [key for key in wanted if key not in found]
    if missing:
        raise ValueError(
            f'{_name(sample)} comes without {" and ".join(missing)} in gt_instances: load '
            'annotations with with_bbox=True and with_mask=True.'
        )
    height, width = sample.batch_input_shape
    scale = found.bboxes.new_tensor((width, height, width, height))
    masks = found.masks.to_tensor(torch.bool, device)
    return Target(found.labels, bbox_xyxy_to_cxcywh(found.bboxes / scale), _pad(masks, sample))


def _stuff(sample: Any, num_things: int, num_stuff: int, device: torch.device) -> Target:
    if 'gt_sem_seg' not in sample:
        raise ValueError(
            f'{_name(sample)} comes without gt_sem_seg, which the {num_stuff} stuff classes need: '
            'load annotations with with_seg=True.'
        )
    labels_map = sample.gt_sem_seg.sem_seg[0].to(device)
    labels = labels_map.unique()
    # A panoptic map holds things as well, which `_things` has read already.
    labels = labels[(labels >= num_things) & (labels != IGNORED)].long()
    # (H, W) == (M, 1, 1) -> one mask for each label, (M, H, W)
    masks = _pad(labels_map == labels[:, None, None], sample)
    return Target(labels, mask_to_box(masks, 'bitmask'), masks)


def _pad(masks: Tensor, sample: Any) -> Tensor:
    """(M, h, w) at the image's or the canvas's size -> (M, H, W)."""
    size = tuple(masks.shape[-2:])
    canvas = tuple(sample.batch_input_shape)
    image = tuple(sample.img_shape[:2])
    if size not in (image, canvas):
        raise ValueError(
            f'{_name(sample)} has masks of size {size}, but the image has '
            f'{image}: resize, crop and pad both alike.'
        )
    # MMDetection pads images on the right and at the bottom.
    return F.pad(masks, (0, canvas[1] - size[1], 0, canvas[0] - size[0]))


def _name(sample: Any) -> str:
    return str(sample.metainfo.get('img_path', 'an image'))
