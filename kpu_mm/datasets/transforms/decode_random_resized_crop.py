"""Decode a random part of an image at one size."""

from __future__ import annotations

import math
import random

from mmcv.transforms import BaseTransform

from ...registry import TRANSFORMS
from .encoded_image import MAX_PIXELS, MAX_RATIO, CropBox, EncodedImage
from .resize import check_interpolation, resize_image

_TRIES = 10


@TRANSFORMS.register_module()
class DecodeRandomResizedCrop(BaseTransform):
    """Decode a random crop of an image and resize it to a square.

    The crop is drawn from the header, as in `Going Deeper with Convolutions
    <https://arxiv.org/abs/1409.4842>`_, before any pixel is decoded.

    Required key: ``bytes``. Added keys: ``img`` (RGB, (size, size, 3)
    uint8), ``img_shape``, ``ori_shape``. Removed key: ``bytes``.

    Args:
        size: Side of the result.
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
        size: int,
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: str = 'bicubic',
        max_pixels: int = MAX_PIXELS,
        max_ratio: float = MAX_RATIO,
    ) -> None:
        if size < 1:
            raise ValueError(f'`size` must be >= 1, got {size}.')
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f'`scale` must rise within (0, 1], got {scale}.')
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f'`ratio` must rise from above 0, got {ratio}.')
        self.size = size
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)
        self.interpolation = check_interpolation(interpolation)
        self.limits = (max_pixels, max_ratio)

    def transform(self, results: dict) -> dict:
        """Replace the encoded image by the pixels of a crop."""
        image = EncodedImage(results.pop('bytes'), 'image', *self.limits)
        size = (self.size, self.size)
        box = random_box(image.size, self.scale, self.ratio)
        pixels = image.pixels(size, box)
        results['img'] = resize_image(pixels, size, self.interpolation)
        results['img_shape'] = size
        results['ori_shape'] = image.size
        return results


def random_box(
    size: tuple[int, int],
    scale: tuple[float, ...],
    ratio: tuple[float, ...],
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
        area = height * width * random.uniform(*scale)
        aspect = math.exp(random.uniform(*map(math.log, ratio)))
        w = round(math.sqrt(area * aspect))
        h = round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left = random.randint(0, width - w)
            top = random.randint(0, height - h)
            return CropBox(left, top, left + w, top + h)
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return CropBox(left, top, left + w, top + h)
