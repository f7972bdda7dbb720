"""Transforms of unlabelled images: decode, crop, resize, pack."""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torchvision.transforms import v2

from kpu_mm.registry import TRANSFORMS

from .encoded_image import MAX_PIXELS, CorruptImageError, CropBox, EncodedImage, resize_image

_INTERPOLATIONS = ('bilinear', 'bicubic')
# Streams have images enough: a panorama's crops show little, and at 1333
# pixels on the longer side 67 are left on the shorter one.
_MAX_RATIO = 20.0
# of the shorter side of what a model is given; KPUBackbone takes no less
_LEAST_SIDE = 32
# draws of a random crop before the central one is taken, as in torchvision
_TRIES = 10


class _Decode(BaseTransform):
    """Replaces ``bytes`` by the pixels of a part at another size.

    Args:
        interpolation: 'bilinear' or 'bicubic'.
        max_pixels: An image with more pixels is skipped.
        max_ratio: An image whose sides differ by a larger factor is skipped.

    Raises:
        ValueError: If there is no such interpolation.
    """

    def __init__(self, interpolation: str, max_pixels: int, max_ratio: float) -> None:
        if interpolation not in _INTERPOLATIONS:
            raise ValueError(
                f"`interpolation` is '{interpolation}'; choose one of {_INTERPOLATIONS}."
            )
        self.interpolation = interpolation
        self.limits = (max_pixels, max_ratio)

    @abstractmethod
    def choose(self, size: tuple[int, int]) -> tuple[tuple[int, int], CropBox | None]:
        """Choose the size of the result and the part of the image.

        Args:
            size: Height and width of the image.

        Returns:
            New height and width; the part, or None for all of the image.
        """

    def transform(self, results: dict) -> dict:
        """Replace the encoded image by its pixels.

        Args:
            results: With ``bytes``.
        """
        image = EncodedImage(results.pop('bytes'), 'image', *self.limits)
        size, box = self.choose(image.size)
        pixels = image.pixels(size, box)
        if image.damage:
            raise CorruptImageError('image', image.damage)
        results['img'] = resize_image(pixels, size, self.interpolation)
        results['img_shape'] = size
        results['ori_shape'] = image.size
        return results


@TRANSFORMS.register_module()
class DecodeRandomResizedCrop(_Decode):
    """Decode a random crop of an image and resize it.

    The crop is drawn from the header, as in `Going Deeper with Convolutions
    <https://arxiv.org/abs/1409.4842>`_, before any pixel is decoded.

    Required key: ``bytes``. Added keys: ``img`` (RGB, (H, W, 3) uint8),
    ``img_shape``, ``ori_shape``. Removed key: ``bytes``.

    Args:
        size: Side of a square, or height and width of the result.
        scale: Least and largest share of the area. Defaults to (0.2, 1.0),
            not given in the paper.
        ratio: Least and largest width by height. Defaults to (3/4, 4/3),
            not given in the paper.
        interpolation: Or ``'bilinear'``. Defaults to ``'bicubic'``.
        max_pixels: An image with more pixels is skipped. Defaults to 50
            million.
        max_ratio: An image whose sides differ by a larger factor is skipped.
            Defaults to 20, not given in the paper.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: str = 'bicubic',
        max_pixels: int = MAX_PIXELS,
        max_ratio: float = _MAX_RATIO,
    ) -> None:
        super().__init__(interpolation, max_pixels, max_ratio)
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 1:
            raise ValueError(f'`size` must be >= 1, got {size}.')
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f'`scale` must rise within (0, 1], got {scale}.')
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f'`ratio` must rise from above 0, got {ratio}.')
        self.size = (height, width)
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)

    def choose(self, size: tuple[int, int]) -> tuple[tuple[int, int], CropBox | None]:
        """Draw a crop.

        Args:
            size: Height and width of the image.
        """
        return self.size, random_box(size, self.scale, self.ratio)


def random_box(
    size: tuple[int, int], scale: tuple[float, ...], ratio: tuple[float, ...]
) -> CropBox:
    """Draw a crop by area and aspect ratio.

    Args:
        size: Height and width of the image.
        scale: Least and largest share of the area.
        ratio: Least and largest width by height, drawn log-uniformly.

    Returns:
        The crop; the largest central one of allowed ratio if ten draws do
        not fit.
    """
    height, width = size
    for _ in range(_TRIES):
        # area = w * h and aspect = w / h, so w = sqrt(area * aspect)
        area = height * width * random.uniform(*scale)
        aspect = math.exp(random.uniform(*map(math.log, ratio)))
        w = round(math.sqrt(area * aspect))
        h = round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left = random.randint(0, width - w)
            top = random.randint(0, height - h)
            return CropBox(left, top, left + w, top + h)
    # No draw fitted, as for a panorama: the central part of allowed ratio.
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return CropBox(left, top, left + w, top + h)


@TRANSFORMS.register_module()
class DecodeResize(_Decode):
    """Decode an image and resize it, keeping its aspect ratio.

    Required key: ``bytes``. Added keys: ``img`` (RGB, (H, W, 3) uint8),
    ``img_shape``, ``ori_shape``. Removed key: ``bytes``.

    An image of which fewer than 32 pixels would be left on the shorter side
    is skipped.

    Args:
        shortest: Wanted length of the shorter side. Defaults to 800.
        longest: Most the longer side may have. Defaults to 1333.
        interpolation: Or ``'bicubic'``. Defaults to ``'bilinear'``.
        max_pixels: An image with more pixels is skipped. Defaults to 50
            million.
        max_ratio: An image whose sides differ by a larger factor is skipped.
            Defaults to 20, not given in the paper.
    """

    def __init__(
        self,
        shortest: int = 800,
        longest: int = 1333,
        interpolation: str = 'bilinear',
        max_pixels: int = MAX_PIXELS,
        max_ratio: float = _MAX_RATIO,
    ) -> None:
        super().__init__(interpolation, max_pixels, max_ratio)
        if not 0 < shortest <= longest:
            raise ValueError(
                f'DecodeResize needs 0 < shortest <= longest, got {shortest} and {longest}.'
            )
        self.shortest = shortest
        self.longest = longest

    def choose(self, size: tuple[int, int]) -> tuple[tuple[int, int], CropBox | None]:
        """Keep the aspect ratio.

        Args:
            size: Height and width of the image.

        Raises:
            CorruptImageError: If too little is left of the shorter side.
        """
        height, width = shortest_edge_size(size, self.shortest, self.longest)
        if min(height, width) < min(_LEAST_SIDE, self.shortest):
            raise CorruptImageError(
                'image',
                f'{size[1]} x {size[0]} pixels become {width} x {height}, too few on one side',
            )
        return (height, width), None


def shortest_edge_size(size: tuple[int, int], shortest: int, longest: int) -> tuple[int, int]:
    """Return the size that DETR-like detectors resize an image to.

    The shorter side becomes ``shortest`` unless the longer one would then
    exceed ``longest``. Rounds exactly as GroundingDINO's own processor, but
    for images that are too long for it: there ``longest`` holds as well.

    Args:
        size: Height and width.
        shortest: Wanted length of the shorter side.
        longest: Most the longer side may have.

    Returns:
        New height and width.
    """
    # In floats until the end: transformers rounds in this order.
    short, long = min(size), max(size)
    wanted = float(shortest)
    if long / short * shortest > longest:
        wanted = longest * short / long
    new_short = max(1, round(wanted))
    new_long = long if new_short == short else int(wanted * long / short)
    # A short side that rounds to itself (1 x 60000) leaves the long one alone.
    new_long = min(max(1, new_long), longest)
    return (new_short, new_long) if size[0] <= size[1] else (new_long, new_short)


@TRANSFORMS.register_module()
class TorchvisionTransform(BaseTransform):
    """One of torchvision's image transforms, applied to some of the images.

    Required key: ``img`` (RGB, (H, W, 3) uint8), which is modified.

    Args:
        name: Name of a class in ``torchvision.transforms.v2`` that keeps
            images uint8, such as 'ColorJitter' or 'GaussianBlur'.
        prob: Share of the images. Defaults to 1.0.
        **options: Arguments of the class.

    Raises:
        ValueError: If torchvision has no such transform, or ``prob`` is not
            in [0, 1].
    """

    def __init__(self, name: str, prob: float = 1.0, **options: Any) -> None:
        kind = getattr(v2, name, None)
        if not isinstance(kind, type) or not issubclass(kind, v2.Transform):
            raise ValueError(f'torchvision.transforms.v2 has no transform {name!r}.')
        if not 0 <= prob <= 1:
            raise ValueError(f'prob={prob}: a share is in [0, 1].')
        self.apply = kind(**options)
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Change the image, or leave it; skip one that torchvision does not take."""
        if float(torch.rand(())) >= self.prob:
            return results
        image = np.ascontiguousarray(results['img'])
        # (H, W, 3) -> (3, H, W) and back
        planes = torch.from_numpy(image).permute(2, 0, 1)
        try:
            changed = self.apply(planes)
        # of an image that is too small to be cropped or blurred
        except (RuntimeError, ValueError) as error:
            reason = ' '.join(str(error).split())
            raise CorruptImageError(
                'image', f'{type(self.apply).__name__} does not take it: {reason}'
            ) from error
        results['img'] = changed.permute(1, 2, 0).contiguous().numpy()
        return results


@TRANSFORMS.register_module()
class PackImage(BaseTransform):
    """Turn ``img`` into a tensor and drop all else but ``skipped``.

    Required keys: ``img`` (RGB, (H, W, 3) uint8), ``skipped``. Result:
    ``image`` (3, H, W) uint8 tensor, ``skipped``.
    """

    def transform(self, results: dict) -> dict:
        """Pack one image."""
        image = results['img']
        if image.dtype != np.uint8 or image.ndim != 3:
            raise ValueError(
                f'PackImage takes (H, W, 3) uint8 and got {image.shape} {image.dtype}; models '
                'normalise images themselves, so remove normalising transforms.'
            )
        if image.strides[1] < 0:
            # MMCV flips by a view that OpenCV would copy slowly.
            image = cv2.flip(image[:, ::-1], 1)
        # (H, W, 3) -> (3, H, W)
        planes = np.empty((image.shape[2], *image.shape[:2]), np.uint8)
        cv2.split(image, mv=list(planes))
        return {'image': torch.from_numpy(planes), 'skipped': results['skipped']}
