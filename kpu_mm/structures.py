"""What models exchange: features of images, and statistics of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor


class Features(NamedTuple):
    """Features of a batch of images.

    Args:
        summary: One vector an image, (B, D); None for a model without one.
        maps: Spatial maps from fine to coarse, each (B, C_i, H_i, W_i).
        masks: For each map, which of its cells show the image and not
            padding, each (B, 1, H_i, W_i) bool; None where all cells do.
    """

    summary: Tensor | None
    maps: tuple[Tensor, ...]
    masks: tuple[Tensor, ...] | None = None

    def outputs(self) -> Iterator[tuple[str, Tensor, Tensor | None]]:
        """Each output that there is, with its name and its mask.

        Yields:
            'summary', (B, D), None, then 'map 0', (B, C_0, H_0, W_0), its
            mask, and so on.
        """
        if self.summary is not None:
            yield 'summary', self.summary, None
        masks = self.masks or (None,) * len(self.maps)
        for i, (m, mask) in enumerate(zip(self.maps, masks, strict=True)):
            yield f'map {i}', m, mask

    def select(self, indices: Sequence[int]) -> Features:
        """Choose maps.

        Args:
            indices: Which maps, in this order; one may occur several times.
        """
        masks = self.masks
        return Features(
            self.summary,
            tuple(self.maps[i] for i in indices),
            tuple(masks[i] for i in indices) if masks is not None else None,
        )

    @torch.no_grad()
    def std(self) -> Tensor:
        """Standard deviation over all values of all maps, padding left out.

        Returns:
            A float32 scalar.
        """
        device = self.maps[0].device
        # float64: the two sums nearly cancel where the mean is far from zero
        count, total, squares = torch.zeros(3, dtype=torch.float64, device=device)
        masks = self.masks or (None,) * len(self.maps)
        for m, mask in zip(self.maps, masks, strict=True):
            if mask is not None:
                m = m.masked_fill(~mask, 0)
                count += mask.sum() * m.shape[1]
            else:
                count += m.numel()
            # both without a copy of the map in another precision
            total += m.sum(dtype=torch.float64)
            squares += torch.linalg.vector_norm(m, dtype=torch.float64).square()
        variance = squares / count - (total / count).square()
        return variance.clamp(min=0).sqrt().float()


def resize_like(
    features: Features, like: Features, shrinks: Sequence[int] | None = None
) -> Features:
    """Resize each map to the same map of ``like``, see :func:`resize`.

    A cell of the result is valid only if no padding had a share in it.

    Args:
        features: Maps, each (B, C_i, H_i, W_i).
        like: As many maps, each (B, C'_i, H'_i, W'_i).
        shrinks: For each map, how many of its rows and columns become one.
            Defaults to None, one for each map.

    Returns:
        The summary as it was, maps (B, C_i, H'_i, W'_i) and their masks.
    """
    sizes = [(m.shape[-2], m.shape[-1]) for m in like.maps]
    shrinks = shrinks or [1] * len(sizes)

    def resize_all(maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(resize(*args) for args in zip(maps, sizes, shrinks, strict=True))

    maps = resize_all(features.maps)
    if features.masks is None:
        return Features(features.summary, maps)
    shares = resize_all([mask.float() for mask in features.masks])
    # 1 up to rounding where all cells with a share are valid
    return Features(features.summary, maps, tuple(share > 1 - 1e-4 for share in shares))


def resize(m: Tensor, size: tuple[int, ...], shrink: int = 1) -> Tensor:
    """Resize a map bilinearly, so that each of its cells has a share in the result.

    Args:
        m: (B, C, H, W).
        size: Height and width.
        shrink: How many rows and columns become one, by the strides; an
            exported graph does not know the sizes. Defaults to 1.
    """
    # Bilinear reads the four nearest cells. From stride 4 to 16 these are 4 of
    # 16, and the other 12 would get no gradient: they are averaged first. From
    # stride 4 to 8 bilinear is the mean, without keeping the map for backward.
    if shrink > 2:
        m = F.avg_pool2d(m, shrink, ceil_mode=True, count_include_pad=False)
    return bilinear(m, size)


def bilinear(m: Tensor, size: tuple[int, ...], align_corners: bool = False) -> Tensor:
    """Resize a map, if it has another size.

    Args:
        m: (B, C, H, W).
        size: Height and width.
        align_corners: As of ``F.interpolate``. Defaults to False.
    """
    # An exported graph must not depend on whether the sizes of its example
    # were equal.
    if not torch.compiler.is_compiling() and m.shape[-2:] == size:
        return m
    # Autocast would copy the map to float32, in which the kernel adds anyway.
    with torch.autocast(m.device.type, enabled=False):
        return F.interpolate(m, size, mode='bilinear', align_corners=align_corners)


@dataclass(frozen=True)
class Moments:
    """Mean and scatter of the vectors seen, to be merged by ``+``.

    The parallel update of Chan, Golub and LeVeque
    (https://doi.org/10.1080/00031305.1983.10483115): centred sums in
    float64, so that a mean far from zero costs no digits, and the order of
    the parts matters to rounding alone.

    Args:
        count: Vectors.
        mean: (C,) float64.
        scatter: Sum of the outer products of what is left of the mean,
            (C, C) float64.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, vectors: Tensor) -> Moments:
        """The moments of some vectors, which may be none.

        Args:
            vectors: (N, C).
        """
        vectors = vectors.double()
        mean = vectors.sum(0) / max(len(vectors), 1)
        centred = vectors - mean
        return cls(len(vectors), mean, centred.T @ centred)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = other.count / max(count, 1)
        step = other.mean - self.mean
        between = self.count * share * torch.outer(step, step)
        return Moments(count, self.mean + share * step, self.scatter + other.scatter + between)

    def over_ranks(self) -> Moments:
        """The moments of what all processes have seen, the same for each."""
        count = torch.tensor(self.count, device=self.mean.device)
        mean = self.count * self.mean
        all_reduce(count)
        all_reduce(mean)
        mean /= count.clamp(min=1)
        step = self.mean - mean
        scatter = self.scatter + self.count * torch.outer(step, step)
        all_reduce(scatter)
        return Moments(int(count), mean, scatter)

    def cpu(self) -> Moments:
        """The same on the CPU."""
        return Moments(self.count, self.mean.cpu(), self.scatter.cpu())

    @property
    def covariance(self) -> Tensor:
        """Covariance, divided by the count, (C, C)."""
        return self.scatter / max(self.count, 1)

    @property
    def variance(self) -> Tensor:
        """Variance of each channel, (C,)."""
        return self.covariance.diagonal()


def valid_vectors(values: Tensor, mask: Tensor | None) -> Tensor:
    """The vectors of a summary or a map, padding left out.

    Args:
        values: (B, C) or (B, C, H, W).
        mask: Which positions count, (B, 1, H, W) bool; None for all.

    Returns:
        (N, C).
    """
    # (B, C, H, W) -> (B, H, W, C)
    vectors = values.movedim(1, -1)
    if mask is None:
        return vectors.reshape(-1, vectors.shape[-1])
    return vectors[mask[:, 0]]
