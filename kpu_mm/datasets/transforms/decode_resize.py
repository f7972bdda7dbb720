"""Decode and resize the way the GroundingDINO detector does."""

from __future__ import annotations

from mmcv.transforms import BaseTransform

from ...registry import TRANSFORMS
from .encoded_image import MAX_PIXELS, MAX_RATIO, EncodedImage
from .resize import check_interpolation, resize_image


@TRANSFORMS.register_module()
class DecodeResize(BaseTransform):
    """Decode an image and resize it, keeping its aspect ratio.

    Required key: ``bytes``. Added keys: ``img`` (RGB, (H, W, 3) uint8),
    ``img_shape``, ``ori_shape``. Removed key: ``bytes``.

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
        max_ratio: float = MAX_RATIO,
    ) -> None:
        if not 0 < shortest <= longest:
            raise ValueError(
                'DecodeResize needs 0 < shortest <= longest, got '
                f'{shortest} and {longest}.'
            )
        self.shortest = shortest
        self.longest = longest
        self.interpolation = check_interpolation(interpolation)
        self.limits = (max_pixels, max_ratio)

    def transform(self, results: dict) -> dict:
        """Replace the encoded image by its pixels."""
        image = EncodedImage(results.pop('bytes'), 'image', *self.limits)
        size = shortest_edge_size(image.size, self.shortest, self.longest)
        pixels = image.pixels(size)
        results['img'] = resize_image(pixels, size, self.interpolation)
        results['img_shape'] = size
        results['ori_shape'] = image.size
        return results


def shortest_edge_size(
    size: tuple[int, int], shortest: int, longest: int
) -> tuple[int, int]:
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
    short, long = min(size), max(size)
    wanted = float(shortest)
    if long / short * shortest > longest:
        wanted = longest * short / long
    new_short = max(1, round(wanted))
    new_long = long if new_short == short else int(wanted * long / short)
    # A short side that rounds to itself (1 x 60000) leaves the long one alone.
    new_long = min(max(1, new_long), longest)
    return (
        (new_short, new_long) if size[0] <= size[1] else (new_long, new_short)
    )
