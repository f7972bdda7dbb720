"""Criterion: matched pairs -> losses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.ops import point_sample
from mmdet.models.losses import DiceLoss
from mmdet.models.utils import get_uncertain_point_coords_with_randomness
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from .denoising import DenoisingQueries
from .matcher import HungarianMatcher, Pairs, TermWeights, generalised_iou
from .predictor import FocalClasses, Predictions, SoftmaxClasses
from .targets import Target


class HeadOutputs(NamedTuple):
    """All predictions of one forward pass.

    Args:
        matching: The initial prediction, then one of each decoder layer, of
            the N matching queries.
        denoising: The same of the D denoising queries; empty if the forward
            pass had none.
        selected: The encoder's predictions; None for learned queries.
        mask_features: (B, C, h, w).
    """

    matching: tuple[Predictions, ...]
    denoising: tuple[Predictions, ...]
    selected: Predictions | None
    mask_features: Tensor


class Criterion(nn.Module):
    """Five losses for each prediction set, all in float32.

    Mask DINO (https://arxiv.org/abs/2206.02777).

    Args:
        classes: :class:`FocalClasses` or :class:`SoftmaxClasses`.
        weights: Of the five terms, in matching and loss alike, by the names
            in :class:`TermWeights`; None takes the paper's. Defaults to
            None.
        num_points: Points a mask is compared at. Defaults to 12544.
        oversample_ratio: Candidates drawn for each point. Defaults to 3.0.
        importance_sample_ratio: Share of the points that are the most
            uncertain candidates; the rest is uniform. Defaults to 0.75.
    """

    def __init__(
        self,
        classes: FocalClasses | SoftmaxClasses,
        weights: dict[str, float] | None = None,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_sample_ratio: float = 0.75,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.weights = TermWeights(**(weights or {}))
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio
        self.matcher = HungarianMatcher(self.weights, num_points)
        self.dice_loss = DiceLoss(naive_dice=True, eps=1.0)

    def forward(
        self,
        outputs: HeadOutputs,
        targets: Sequence[Target],
        denoising: DenoisingQueries | None = None,
    ) -> dict[str, Tensor]:
        """All weighted losses of one step.

        Keys are 'loss_cls', 'loss_bbox', 'loss_iou', 'loss_mask' and
        'loss_dice' of the last layer; with the prefix 'd0.' of the initial
        prediction, 'd1.', ... of the layers before the last, 'enc.' of the
        selected cells; all but the last again after 'dn.' for denoising.

        Args:
            outputs: The head's.
            targets: Objects of each image.
            denoising: The queries that ``outputs.denoising`` came from.
        """
        last = len(outputs.matching) - 1
        names = [f'd{i}.' for i in range(last)] + ['']
        sets = dict(zip(names, outputs.matching, strict=True))
        if outputs.selected is not None:
            sets['enc.'] = outputs.selected
        features = outputs.mask_features
        with torch.autocast(features.device.type, enabled=False):
            normaliser = object_count(targets, features)
            matched = self.matcher(list(sets.values()), features, targets)
            # prefix, prediction set, its pairs, pairs of each object
            jobs = [(name, sets[name], pairs, 1) for name, pairs in zip(sets, matched, strict=True)]
            if denoising is not None:
                groups = max(denoising.groups, 1)
                jobs += [
                    (f'dn.{name}', predictions, denoising.pairs, groups)
                    for name, predictions in zip(names, outputs.denoising, strict=True)
                    # The initial prediction of learned queries has no loss,
                    # as in the official code.
                    if name != 'd0.' or outputs.selected is not None
                ]
            losses = {}
            for prefix, predictions, pairs, groups in jobs:
                terms = self.set_losses(predictions, features, targets, pairs, normaliser, groups)
                losses.update({prefix + key: terms[key] for key in terms})
        return losses

    def draw_points(self, mask_logits: Tensor) -> Tensor:
        """Where to compare predicted masks with their objects.

        Args:
            mask_logits: (P, h, w).

        Returns:
            (P, num_points, 2) as (x, y) in [0, 1].
        """
        logits = mask_logits.detach()[:, None]  # (P, 1, h, w)
        # as in PointRend (https://arxiv.org/abs/1912.08193)
        return get_uncertain_point_coords_with_randomness(
            logits, None, self.num_points, self.oversample_ratio, self.importance_sample_ratio
        )

    def set_losses(
        self,
        predictions: Predictions,
        mask_features: Tensor,
        targets: Sequence[Target],
        pairs: Sequence[Pairs],
        normaliser: Tensor,
        groups: int = 1,
    ) -> dict[str, Tensor]:
        """The five weighted losses of one prediction set.

        Args:
            predictions: The set.
            mask_features: (B, C, h, w).
            targets: Objects of each image.
            pairs: Of each image.
            normaliser: Number of objects, a scalar tensor.
            groups: Pairs that every paired object has.
        """
        normaliser = normaliser * groups
        logits = predictions.logits.float()
        # (B, N), the background where no object is paired
        labels = torch.full(logits.shape[:2], self.classes.num_classes, device=logits.device)
        for row, target, pair in zip(labels, targets, pairs, strict=True):
            row[pair.queries] = target.labels[pair.objects]
        boxes = gather(predictions.boxes, [p.queries for p in pairs]).float()
        true_boxes = gather([target.boxes for target in targets], [p.objects for p in pairs])
        masks, true_masks = self._sample(
            predictions.mask_queries, mask_features, targets, pairs, groups
        )
        iou = generalised_iou(bbox_cxcywh_to_xyxy(boxes), bbox_cxcywh_to_xyxy(true_boxes))
        cross_entropy = F.binary_cross_entropy_with_logits(masks, true_masks, reduction='none')
        terms = dict(
            cls=self.classes.loss(logits, labels, normaliser),
            bbox=(boxes - true_boxes).abs().sum() / normaliser,
            iou=(1 - iou).sum() / normaliser,
            mask=cross_entropy.mean(1).sum() / normaliser,
            dice=self.dice_loss(masks, true_masks, avg_factor=normaliser),
        )
        return {f'loss_{name}': getattr(self.weights, name) * term for name, term in terms.items()}

    def _sample(
        self,
        mask_queries: Tensor,
        mask_features: Tensor,
        targets: Sequence[Target],
        pairs: Sequence[Pairs],
        groups: int,
    ) -> tuple[Tensor, Tensor]:
        """Logits and true values of paired masks at points, (P, points)."""
        masks = torch.cat(
            [
                torch.einsum('pc,chw->phw', queries[pair.queries], features)
                for queries, features, pair in zip(
                    mask_queries.float(), mask_features.float(), pairs, strict=True
                )
            ]
        )
        points = self.draw_points(masks)
        # The G pairs of an object are next to each other: its full-size mask
        # is read once, at the points of all of them.
        objects = gather(
            [target.masks for target in targets], [pair.objects[::groups] for pair in pairs]
        )[:, None].float()
        # (T * G, points, 2) -> (T, G * points, 2)
        places = points.view(len(objects), groups * self.num_points, 2)
        return (
            point_sample(masks[:, None], points)[:, 0],
            point_sample(objects, places).view(len(masks), self.num_points),
        )


def object_count(targets: Sequence[Target], like: Tensor) -> Tensor:
    """Mean number of objects of a process, at least 1.

    Args:
        targets: Objects of each image of this process.
        like: A tensor on the device of the result.
    """
    count = sum(len(target.labels) for target in targets)
    mean: Tensor = reduce_mean(like.new_tensor(float(count)))
    return mean.clamp(min=1)


def gather(parts: Iterable[Tensor], indices: Iterable[Tensor]) -> Tensor:
    """Chosen rows of all images, concatenated.

    Args:
        parts: Of each image, (N_i, ...).
        indices: Rows of each image, (P_i,).

    Returns:
        (sum of P_i, ...).
    """
    return torch.cat([part[index] for part, index in zip(parts, indices, strict=True)])
