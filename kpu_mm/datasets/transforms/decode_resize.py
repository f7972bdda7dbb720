"""Decode and resize the way the GroundingDINO detector does."""

from __future__ import annotations

from mmcv.transforms import BaseTransform

from ...registry import TRANSFORMS
from .encoded_image import EncodedImage
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
    """

    def __init__(
        self,
        shortest: int = 800,
        longest: int = 1333,
        interpolation: str = 'bilinear',
    ) -> None:
        if not 0 < shortest <= longest:
            raise ValueError(
                'DecodeResize needs 0 < shortest <= longest, got '
                f'{shortest} and {longest}.'
            )
        self.shortest = shortest
        self.longest = longest
        self.interpolation = check_interpolation(interpolation)

    def transform(self, results: dict) -> dict:
        """Replace the encoded image by its pixels."""
        image = EncodedImage(results.pop('bytes'))
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
    exceed ``longest``. Rounds exactly as GroundingDINO's own processor.

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
    return (
        (new_short, new_long) if size[0] <= size[1] else (new_long, new_short)
    )
