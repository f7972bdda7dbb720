"""How alike the features of student and teachers are, at one or more sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kpu_mm.models.backbones import KPUBackbone
from kpu_mm.models.kpu_distiller import KPUDistiller
from kpu_mm.models.losses import cosine_loss, masked_mean, squared_error
from kpu_mm.structures import Features, resize_like, valid_vectors

from .batches import Batch
from .distilled import extract_pairs, extract_sentinel


def unbiased_hsic(sums: Tensor) -> Tensor:
    """Compute HSIC without the bias that depends on the number of samples.

    The estimator of Song et al. (2012,
    https://www.jmlr.org/papers/v13/song12a.html) with linear kernels, by
    which Nguyen et al. (https://arxiv.org/abs/2010.15327, equation 3) compare
    layers over minibatches. Below zero by chance where nothing is shared.

    Args:
        sums: Sum over n >= 4 samples of the outer products of
            ``(x, |x|^2, 1)`` and ``(y, |y|^2, 1)``, (C + 2, D + 2) float64.

    Returns:
        A float64 scalar.
    """
    n = sums[-1, -1]
    cross, x, y = sums[:-2, :-2], sums[:-2, -1], sums[-1, :-2]
    norms, x_norms, y_norms = sums[-2, -2], sums[-2, -1], sums[-1, -2]
    # With K = X X^T and L = Y Y^T, both without their diagonals:
    # tr(K L), 1^T K L 1, and the product of 1^T K 1 and 1^T L 1.
    trace = cross.square().sum() - norms
    rows = x @ cross @ y - x @ sums[:-2, -2] - y @ sums[-2, :-2] + norms
    totals = (x.square().sum() - x_norms) * (y.square().sum() - y_norms)
    value = trace + totals / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows
    return value / (n * (n - 3))


class StreamingCKA:
    """Unbiased linear CKA over all samples of all batches.

    Linear centred kernel alignment of Kornblith et al.
    (https://arxiv.org/abs/1905.00414) with :func:`unbiased_hsic`. It is no
    average over minibatches, but the very value of all samples at once: the
    sums of batches add up, in memory that depends on the channels alone.
    Every valid position of every image is a sample.
    """

    def __init__(self) -> None:
        self.shifts: tuple[Tensor, Tensor] | None = None
        self.sums: list[Any] = []

    @property
    def count(self) -> int:
        """Number of samples."""
        return int(self.sums[0][-1, -1]) if self.sums else 0

    def add(self, first: Tensor, second: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            first: Features of one model, (B, C) or (B, C, H, W).
            second: Another's of the same images, (B, D) or (B, D, H, W).
            mask: Which positions count, (B, 1, H, W) bool. Defaults to None,
                all.
        """
        x = valid_vectors(first, mask).double()
        y = valid_vectors(second, mask).double()
        if not len(x):
            return
        if self.shifts is None:
            # A shift does not change CKA; without one, sums of features far
            # from zero would lose the digits that tell samples apart.
            self.shifts = x.mean(0), y.mean(0)
        x, y = (
            # (N, C) -> (N, C + 2)
            F.pad(torch.cat([v, v.square().sum(1, True)], 1), (0, 1), value=1)
            for v in (x - self.shifts[0], y - self.shifts[1])
        )
        new = [x.T @ y, x.T @ x, y.T @ y]
        old = self.sums or [0.0] * 3
        self.sums = [a + b for a, b in zip(old, new, strict=True)]

    def value(self) -> float:
        """Give the similarity: 1 for equal spaces, about 0 for unrelated ones.

        Raises:
            ValueError: If there are fewer than four samples.
        """
        if self.count < 4:
            raise ValueError(
                f'CKA needs four samples or more and got {self.count}; look at more images.'
            )
        xy, xx, yy = map(unbiased_hsic, self.sums)
        return (xy / (xx * yy).sqrt()).item()


class Agreement:
    """Cosine, mean squared error and CKA of features in one space.

    Cosine and error are means over an image's positions, then over images, as
    L_align takes them.
    """

    def __init__(self) -> None:
        self.images = 0
        self.cosine = 0.0
        self.mse = 0.0
        self.cka = StreamingCKA()

    def add(self, first: Tensor, second: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            first: (B, C) or (B, C, H, W).
            second: The same shape.
            mask: Which positions count, (B, 1, H, W) bool. Defaults to None,
                all.
        """
        self.cka.add(first, second, mask)
        if first.ndim == 2:  # a summary is a map of one position
            first, second = first[..., None, None], second[..., None, None]
        first, second = first.double(), second.double()
        # (B, C, H, W) -> (B, H, W)
        cosine = 1 - cosine_loss(first, second)
        error = squared_error(first, second)
        self.images += len(first)
        self.cosine += masked_mean(cosine, mask).sum().item()
        self.mse += masked_mean(error, mask).sum().item()

    def result(self) -> dict[str, float]:
        """Give ``cosine``, ``mse`` and ``cka``."""
        return dict(
            cosine=self.cosine / self.images, mse=self.mse / self.images, cka=self.cka.value()
        )


def add_outputs(
    found: Mapping[str, Agreement | StreamingCKA], first: Features, second: Features
) -> None:
    """Add what the features of two models have in common.

    Args:
        found: By output, the summary (if both have one) before the maps.
        first: Features.
        second: As many maps, of the same sizes.
    """
    # A student has a summary also where the teacher has none.
    if first.summary is None or second.summary is None:
        first, second = (f._replace(summary=None) for f in (first, second))
    for measure, (_, a, mask), (_, b, other) in zip(
        found.values(), first.outputs(), second.outputs(), strict=True
    ):
        if mask is not None and other is not None:
            mask = mask & other
        measure.add(a, b, other if mask is None else mask)


def names_of(distiller: KPUDistiller, name: str) -> list[str]:
    """Name the outputs of a teacher that the student learns.

    Args:
        distiller: The distiller.
        name: The teacher.

    Returns:
        'summary' (if there is one) and 'map 0, 14 → 16', ...: a teacher's map,
        its stride, and that of the student's level paired with it.
    """
    teacher, strides = distiller.teachers[name], distiller.student.strides
    link = distiller.links[name]
    compared = teacher.summary_channels is not None and link.compares_summary
    return ['summary'] * compared + [
        f'map {i}, {teacher.strides[i]} → {strides[level]}' for i, level in link.levels.pairs
    ]


@torch.no_grad()
def measure_agreement(
    distiller: KPUDistiller, name: str, batches: Iterable[Batch]
) -> dict[str, dict[str, float]]:
    """Compare the student with one teacher.

    Args:
        distiller: A distiller with the term 's2t'.
        name: The teacher.
        batches: Images.

    Returns:
        For each of :func:`names_of`, between h_s2t(X) and X^t ``cosine``,
        ``mse`` and ``cka``; then CKA of X^t with the student's own features
        (``cka_student``) and with the sentinel's (``cka_sentinel``, if there
        is one), which need no projector.
    """
    outputs = names_of(distiller, name)
    projected = {output: Agreement() for output in outputs}
    own: dict[str, dict[str, StreamingCKA]] = {}
    for images, mask in batches:
        student, teacher = extract_pairs(distiller, name, images, mask)
        guess = distiller.links[name].to_teacher(student, like=teacher)
        add_outputs(projected, guess, teacher)
        models = dict(student=student)
        if isinstance(distiller.student, KPUBackbone):
            sentinel = extract_sentinel(distiller.student, images, mask)
            # its one map with each of the teacher's
            models['sentinel'] = sentinel.select([0] * len(teacher.maps))
        for model, features in models.items():
            found = own.setdefault(model, {o: StreamingCKA() for o in outputs})
            add_outputs(found, resize_like(features, teacher), teacher)
    return {
        output: projected[output].result()
        | {f'cka_{model}': own[model][output].value() for model in own}
        for output in outputs
    }
