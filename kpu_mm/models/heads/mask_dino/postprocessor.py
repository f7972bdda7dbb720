"""Postprocessor: the last prediction set -> results of one image."""

from __future__ import annotations

from typing import Any, NamedTuple

from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from .structures import Predictions


class Results(NamedTuple):
    """What was asked for, of one image; the rest is None.

    Args:
        instances: ``bboxes`` (n, 4) as (x1, y1, x2, y2) in pixels,
            ``labels``, ``scores`` and ``masks`` (n, H, W) bool.
        semantic: ``sem_seg`` (1, H, W), class labels.
        panoptic: ``sem_seg`` (1, H, W), label + id * INSTANCE_OFFSET.
    """

    instances: InstanceData | None
    semantic: PixelData | None
    panoptic: PixelData | None


class Postprocessor:
    """Instance, semantic and panoptic results from the same masks.

    Mask DINO (https://arxiv.org/abs/2206.02777). No suppression and no
    score threshold for instances; their boxes may leave the image.

    Args:
        classes: :class:`FocalClasses` or :class:`SoftmaxClasses`.
        num_things: Classes below this one are things.
        instance_on: Whether to give instances. Defaults to True.
        semantic_on: Whether to give a class for each pixel. Defaults to
            False.
        panoptic_on: Whether to give segments. Defaults to False.
        max_per_img: Most instances of an image. Defaults to 100.
        object_mask_thr: Queries of lower score make no segment. Defaults to
            0.25.
        iou_thr: A segment must keep this share of its mask. Defaults to 0.8.
        temperature: Of the softmax over sigmoid scores, for semantic and
            panoptic results. Defaults to 0.06.
    """

    def __init__(
        self,
        classes: Any,
        num_things: int,
        instance_on: bool = True,
        semantic_on: bool = False,
        panoptic_on: bool = False,
        max_per_img: int = 100,
        object_mask_thr: float = 0.25,
        iou_thr: float = 0.8,
        temperature: float = 0.06,
    ) -> None:
        raise NotImplementedError

    def __call__(
        self,
        predictions: Predictions,
        mask_features: Tensor,
        meta: dict[str, Any],
        rescale: bool = True,
    ) -> Results:
        """Results of one image.

        Args:
            predictions: Of one image, without the batch dimension.
            mask_features: (C, h, w).
            meta: ``batch_input_shape``, ``img_shape`` and ``ori_shape``.
            rescale: Whether to give results at the size of the original
                image, not of the resized one. Defaults to True.
        """
        raise NotImplementedError
