"""L_align: the distance between two models' features, one value an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

Distance = Callable[[Tensor, Tensor], Tensor]


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the valid positions of each image.

    Args:
        values: (B, H, W).
        mask: (B, 1, H, W) bool; None where every position counts.

    Returns:
        (B,); zero for an image without a valid position.
    """
    if mask is None:
        return values.flatten(1).mean(1)
    valid = mask[:, 0]  # (B, 1, H, W) -> (B, H, W)
    # Fill, not multiply: features of padding may be NaN, and 0 * NaN is NaN.
    total = values.masked_fill(~valid, 0).flatten(1).sum(1)
    return total / valid.flatten(1).sum(1).clamp(min=1)


def cosine_loss(x: Tensor, y: Tensor) -> Tensor:
    """1 - cosine over channels: (B, C, ...) and the same -> (B, ...)."""
    return 1 - F.cosine_similarity(x, y, dim=1)


def smooth_l1_loss(x: Tensor, y: Tensor, beta: float = 1.0) -> Tensor:
    """Smooth L1, mean over channels: (B, C, ...) and the same -> (B, ...)."""
    return F.smooth_l1_loss(x, y, reduction='none', beta=beta).mean(1)


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    """Squared error, mean over channels: (B, C, ...) twice -> (B, ...)."""
    return F.mse_loss(x, y, reduction='none').mean(1)


@MODELS.register_module()
class AlignLoss(nn.Module):
    """L_align of KPU (https://arxiv.org/abs/2508.14707).

    ``summary * Lcos(x1, x2) + cosine * Lcos(V1, V2) + smooth_l1 *
    SmoothL1(V1, V2)`` for summaries x and spatial maps V. The first term is
    dropped where a model has no summary; the others are means over a map's
    valid positions, then weighted means over the maps. Computed in float32
    whatever the autocast. The last four are for the recipes of other papers.

    Args:
        summary: Weight of the summaries' cosine. Defaults to 1.0.
        cosine: Weight of the maps' cosine. Defaults to 0.9.
        smooth_l1: Weight of the maps' smooth L1. Defaults to 0.1.
        beta: Where smooth L1 turns linear. Defaults to 1.0.
        mse: Weight of the maps' squared error, PHI-S's
            (https://arxiv.org/abs/2410.01680). Defaults to 0.0.
        summary_smooth_l1: Weight of the summaries' smooth L1, UNIC's
            (https://arxiv.org/abs/2408.05088). Defaults to 0.0.
        summary_mse: Weight of the summaries' squared error, SigLino's
            (https://arxiv.org/abs/2512.20157). Defaults to 0.0.
        average: Take the mean of the summaries' part and the maps' part in
            the place of their sum, so that a teacher without a summary weighs
            as much as one with it, as DUNE
            (https://arxiv.org/abs/2503.14405). Defaults to False.

    Attributes:
        compares_summary: Whether a term of the summaries has a weight.

    Raises:
        ValueError: If maps would not be compared at all.
    """

    def __init__(
        self,
        summary: float = 1.0,
        cosine: float = 0.9,
        smooth_l1: float = 0.1,
        beta: float = 1.0,
        mse: float = 0.0,
        summary_smooth_l1: float = 0.0,
        summary_mse: float = 0.0,
        average: bool = False,
    ) -> None:
        super().__init__()
        self.average = average
        smooth = partial(smooth_l1_loss, beta=beta)
        self.summary_terms = _in_use(
            (summary, cosine_loss), (summary_smooth_l1, smooth), (summary_mse, squared_error)
        )
        self.compares_summary = bool(self.summary_terms)
        self.map_terms = _in_use((cosine, cosine_loss), (smooth_l1, smooth), (mse, squared_error))
        if not self.map_terms:
            raise ValueError(
                'AlignLoss compares no maps: give one of cosine, smooth_l1 and mse a weight.'
            )

    def forward(
        self, first: Features, second: Features, weights: Sequence[float] | None = None
    ) -> Tensor:
        """Compare the summaries, and the maps one by one.

        Args:
            first: Features with as many maps, of the same shapes, as
            second: the other model's.
            weights: Weight of each map, which add up to 1. Defaults to None,
                every map counts the same.

        Returns:
            One value for each image, (B,).
        """
        # float32: the cosine of nearly equal vectors loses all its digits in
        # bfloat16
        with torch.autocast(first.maps[0].device.type, enabled=False):
            masks = _common_masks(first, second)
            # (B, C, H, W) -> (B, H, W) -> (B,), for each map
            maps = [
                masked_mean(_distance(self.map_terms, v1, v2), mask)
                for v1, v2, mask in zip(first.maps, second.maps, masks, strict=True)
            ]
            weights = weights or [1 / len(maps)] * len(maps)
            # (B,) for each map -> (B,); plain numbers cost no copy to the device
            loss = reduce(torch.add, [w * m for w, m in zip(weights, maps, strict=True)])
            x1, x2 = first.summary, second.summary
            if self.summary_terms and x1 is not None and x2 is not None:
                loss = loss + _distance(self.summary_terms, x1, x2)
                if self.average:
                    loss = loss / 2
            return loss


def _in_use(*terms: tuple[float, Distance]) -> list[tuple[float, Distance]]:
    return [(weight, distance) for weight, distance in terms if weight]


def _distance(terms: Sequence[tuple[float, Distance]], a: Tensor, b: Tensor) -> Tensor:
    """Weighted sum of distances: (B, C, ...) twice -> (B, ...)."""
    a, b = a.float(), b.float()
    return torch.stack([weight * d(a, b) for weight, d in terms]).sum(0)


def _common_masks(first: Features, second: Features) -> Sequence[Tensor | None]:
    """A position counts where neither model has padding."""
    if first.masks is None or second.masks is None:
        masks = first.masks or second.masks
        return masks or [None] * len(first.maps)
    return [a & b for a, b in zip(first.masks, second.masks, strict=True)]
