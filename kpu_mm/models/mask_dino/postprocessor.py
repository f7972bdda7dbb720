"""Postprocessor: the last prediction set -> results of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from .predictor import FocalClasses, Predictions, SoftmaxClasses


class Results(NamedTuple):
    """Results of one image; None for those that are switched off.

    Args:
        instances: ``bboxes`` (n, 4) as (x1, y1, x2, y2) in pixels,
            ``labels``, ``scores`` and ``masks`` (n, H, W) bool.
        semantic: ``sem_seg`` (1, H, W), class labels.
        panoptic: ``sem_seg`` (1, H, W), label + id * INSTANCE_OFFSET.
    """

    instances: InstanceData | None
    semantic: PixelData | None
    panoptic: PixelData | None


@dataclass
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
        iou_thr: Segments that win less than this share of their mask's
            pixels are dropped. Defaults to 0.8.
    """

    classes: FocalClasses | SoftmaxClasses
    num_things: int
    instance_on: bool = True
    semantic_on: bool = False
    panoptic_on: bool = False
    max_per_img: int = 100
    object_mask_thr: float = 0.25
    iou_thr: float = 0.8

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
        frame = Frame(
            meta['batch_input_shape'],
            meta['img_shape'][:2],
            meta['ori_shape'][:2] if rescale else meta['img_shape'][:2],
        )
        predictions = Predictions(*(part.float() for part in predictions))
        mask_features = mask_features.float()
        instances = semantic = panoptic = None
        if self.instance_on:
            instances = self.instances(predictions, mask_features, frame)
        if self.semantic_on or self.panoptic_on:
            masks = frame.masks(predictions.mask_queries, mask_features)
            masks = masks.sigmoid()
            if self.semantic_on:
                semantic = self.semantic(predictions.logits, masks)
            if self.panoptic_on:
                panoptic = self.panoptic(predictions.logits, masks)
        return Results(instances, semantic, panoptic)

    def instances(
        self, predictions: Predictions, mask_features: Tensor, frame: Frame
    ) -> InstanceData:
        """The best pairs of query and class, without those of stuff.

        Args:
            predictions: Of one image, without the batch dimension.
            mask_features: (C, h, w).
            frame: Sizes of the image.
        """
        scores = self.classes.scores(predictions.logits)
        # (N, K) -> (N * K,): a query may win with several classes
        count = min(self.max_per_img, scores.numel())
        scores, best = scores.flatten().topk(count)
        labels = best % self.classes.num_classes
        queries = best // self.classes.num_classes
        things = labels < self.num_things
        scores, labels, queries = (scores[things], labels[things], queries[things])
        boxes = frame.boxes(predictions.boxes[queries])
        # A query's mask is rendered once for all its classes.
        queries, source = queries.unique(return_inverse=True)
        masks = frame.masks(predictions.mask_queries[queries], mask_features)
        inside = masks > 0
        # mean score of the mask's own pixels
        area = inside.sum((1, 2))
        mask_scores = (masks.sigmoid() * inside).sum((1, 2)) / (area + 1e-6)
        return InstanceData(
            bboxes=boxes, labels=labels, scores=scores * mask_scores[source], masks=inside[source]
        )

    def semantic(self, logits: Tensor, masks: Tensor) -> PixelData:
        """The class of every pixel.

        Args:
            logits: (N, K).
            masks: Scores of the masks, (N, H, W).
        """
        scores = self.classes.exclusive_scores(logits)
        votes = torch.einsum('nk,nhw->khw', scores, masks)
        return PixelData(sem_seg=votes.argmax(0, keepdim=True))

    def panoptic(self, logits: Tensor, masks: Tensor) -> PixelData:
        """Segments of things and stuff; ``num_classes`` where there is none.

        Args:
            logits: (N, K).
            masks: Scores of the masks, (N, H, W).
        """
        keep = self.classes.scores(logits).amax(-1) > self.object_mask_thr
        scores, labels = self.classes.exclusive_scores(logits[keep]).max(-1)
        masks = masks[keep]
        void = self.classes.num_classes
        if not len(masks):
            return PixelData(sem_seg=torch.full_like(masks.sum(0), void).int()[None])
        # (N, 1, 1) * (N, H, W) -> the winning query of each pixel, (1, H, W)
        owner = (scores[:, None, None] * masks).argmax(0, keepdim=True)
        inside = masks >= 0.5
        # (n,): pixels won, pixels claimed, pixels both won and claimed
        won = owner.flatten().bincount(minlength=len(masks))
        claimed = inside.sum((1, 2))
        claim = inside.gather(0, owner)
        both = owner[claim].bincount(minlength=len(masks))
        accepted = (both > 0) & (won / claimed >= self.iou_thr)
        # Things are numbered from 1. Stuff is always 0, so that all segments
        # of a stuff class merge into one.
        things = labels < self.num_things
        number = (accepted & things).cumsum(0) * things
        segment = labels + number * INSTANCE_OFFSET
        sem_seg = torch.where(claim & accepted[owner], segment[owner], void)
        return PixelData(sem_seg=sem_seg.int())


class Frame(NamedTuple):
    """Sizes (H, W) of one image on its way through the model.

    Args:
        canvas: Of the padded batch.
        resized: Of the image on the canvas, top left.
        output: Of the results.
    """

    canvas: tuple[int, int]
    resized: tuple[int, int]
    output: tuple[int, int]

    def masks(self, mask_queries: Tensor, mask_features: Tensor) -> Tensor:
        """Mask logits at the output's size.

        Args:
            mask_queries: (n, C).
            mask_features: (C, h, w).

        Returns:
            (n, H, W).
        """
        masks = torch.einsum('nc,chw->nhw', mask_queries, mask_features)[None]
        # Two steps, as published: to the canvas, then without its padding to
        # the output. One step would give other values.
        masks = F.interpolate(masks, self.canvas, mode='bilinear')
        height, width = self.resized
        masks = masks[..., :height, :width]
        return F.interpolate(masks, self.output, mode='bilinear')[0]

    def boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (cx, cy, w, h) over the canvas -> pixels of the output.

        Args:
            boxes: (n, 4).

        Returns:
            (n, 4) as (x1, y1, x2, y2), which may leave the output.
        """
        height, width = (
            output * canvas / resized for canvas, resized, output in zip(*self, strict=True)
        )
        return bbox_cxcywh_to_xyxy(boxes) * boxes.new_tensor((width, height, width, height))
