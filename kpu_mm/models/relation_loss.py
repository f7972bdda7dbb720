"""Distances between images, which the student learns from a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, get_rank, get_world_size
from torch import Tensor, nn

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

# Of a mean distance; smaller ones are those of equal features.
_EPS = 1e-6


def gather_rows(x: Tensor) -> tuple[Tensor, int]:
    """Rows of all processes, which may have different numbers of them.

    Args:
        x: (B, D), without gradient.

    Returns:
        (N, D), and how many rows come before this process's own.
    """
    if get_world_size() == 1:
        return x, 0
    counts = [int(n) for n in all_gather(torch.tensor([len(x)], device=x.device))]
    padded = F.pad(x, (0, 0, 0, max(counts) - len(x)))
    rows = [part[:n] for part, n in zip(all_gather(padded), counts, strict=True)]
    return torch.cat(rows), sum(counts[: get_rank()])


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean, (B, D) and (N, D) -> (B, N)."""
    # By matrix products, small distances would lose their digits.
    return torch.cdist(x, y, compute_mode='donot_use_mm_for_euclid_dist')


def asymmetric_relation(student: Tensor, teacher: Tensor, beta: float = 1.0) -> Tensor:
    """One-sided error of each image's distances to all others.

    Distances are divided by their mean over all pairs. Of a pair that is
    closer than the median in the teacher's space, only a student's distance
    that is too large counts, of any other only one that is too small.

    Args:
        student: (B, D).
        teacher: (B, D'), without gradient.
        beta: Where smooth L1 turns linear. Defaults to 1.0.

    Returns:
        For each image the mean over all other images, those of other
        processes included, (B,). The gradient of the mean over all images is
        that of the mean over all pairs, with the means of the distances held
        constant.
    """
    everyone, first = gather_rows(teacher)
    others, _ = gather_rows(student.detach())
    count = len(everyone)
    if count < 2:
        return 0 * student.sum(1)
    pairs = count * (count - 1)
    wanted = _distances(everyone, everyone)
    # The diagonal is zero, so that sums are those of the pairs.
    wanted = wanted / (wanted.sum() / pairs).clamp(min=_EPS)
    scale = (_distances(others, others).sum() / pairs).clamp(min=_EPS)
    # In order of size the diagonal comes first.
    near = wanted < wanted.flatten().kthvalue(count + (pairs + 1) // 2).values
    own = slice(first, first + len(student))
    excess = _distances(student, others) / scale - wanted[own]
    error = torch.where(near[own], excess, -excess).clamp(min=0)
    penalty = F.smooth_l1_loss(error, torch.zeros_like(error), reduction='none', beta=beta)
    values = penalty.sum(1) / (count - 1)
    # A pair's penalty is that of both of its images, of which only one has a
    # gradient here: twice that of this one.
    return 2 * values - values.detach()


@MODELS.register_module()
class RelationLoss(nn.Module):
    """L_align, and distances between images as the teacher's.

    Asymmetric relation-knowledge distillation of SigLino
    (https://arxiv.org/abs/2512.20157): :func:`asymmetric_relation` between
    the summaries is added. Teachers without a summary have none. How SigLino
    normalises distances is not known to us; here they are divided by their
    mean, as in RKD (https://arxiv.org/abs/1904.05068). For 's2t' alone.

    Args:
        align: Config of L_align.
        relation: Weight of the relations, not given in the paper. Defaults
            to 1.0.
        beta: Where their smooth L1 turns linear. Defaults to 1.0.

    Attributes:
        terms: The loss terms that it is meant for.
        compares_summary: As of :class:`AlignLoss`.
    """

    terms = ('s2t',)
    compares_summary = True

    def __init__(self, align: dict[str, Any], relation: float = 1.0, beta: float = 1.0) -> None:
        super().__init__()
        self.align = MODELS.build(align)
        self.relation = relation
        self.beta = beta

    def forward(
        self, first: Features, second: Features, weights: Sequence[float] | None = None
    ) -> Tensor:
        """Compare features, and distances between summaries.

        Args:
            first: The student's, in the teacher's space.
            second: The teacher's.
            weights: As :class:`AlignLoss` takes them. Defaults to None.

        Returns:
            One value for each image, (B,).
        """
        loss: Tensor = self.align(first, second, weights)
        x1, x2 = first.summary, second.summary
        if x1 is None or x2 is None:
            return loss
        with torch.autocast(x1.device.type, enabled=False):
            relation = asymmetric_relation(x1.float(), x2.detach().float(), self.beta)
        return loss + self.relation * relation
