"""Image files to pixels, checked before and while they are decoded."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence

import mmcv
import numpy as np
from PIL import Image

from kpu_mm.datasets import CorruptImageError
from kpu_mm.datasets.encoded_image import (
    FORMATS,
    MAX_PIXELS,
    EncodedImage,
)


def decode(
    data: bytes,
    name: str,
    backend: str = 'cv2',
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decode an image upright, or say in a sentence what is wrong with it.

    Args:
        data: The file.
        name: What to call it in errors.
        backend: MMCV's decoder, 'cv2' or 'pillow'. Defaults to 'cv2'.
        max_pixels: Larger images are refused, by their header. Above
            Pillow's own limit of 89 million ``PIL.Image.MAX_IMAGE_PIXELS``
            must be raised too. Defaults to 50 million.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        ValueError: If it is no image, broken or too large.
    """
    check_size(_size_of(data), name, max_pixels)
    try:
        # OpenCV fills what is missing of a file with grey
        EncodedImage(data, name).check()
    except CorruptImageError as error:
        raise ValueError(
            f"'{name}' is not an image that can be decoded "
            f'({error.reason}); replace it.'
        ) from error
    bgr = mmcv.imfrombytes(data, flag='color', backend=backend)
    if bgr is None:
        raise ValueError(
            f"'{name}' has a format that OpenCV does not know; save it as "
            'PNG or JPEG.'
        )
    return bgr


def _size_of(data: bytes) -> tuple[int, int]:
    """Width and height by the header; (0, 0) if there is none to read."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            return Image.open(io.BytesIO(data), formats=FORMATS).size
        except Image.DecompressionBombError as error:
            # of such a size it tells the product only
            count = re.search(r'\d+', str(error))
            return int(count[0]) if count else 2**31, 1
        # whatever else is wrong with it is told when it is decoded
        except Exception:
            return 0, 0


def check_size(size: Sequence[int], name: str, max_pixels: int) -> None:
    """Refuse an image of too many pixels.

    Args:
        size: Height and width, in any order.
        name: What to call it.
        max_pixels: Most pixels.

    Raises:
        ValueError: If it has more.
    """
    pixels = size[0] * size[1]
    if pixels > max_pixels:
        raise ValueError(
            f"'{name}' has {pixels / 1e6:.0f} million pixels, more than the "
            f'{max_pixels / 1e6:.0f} million that are taken; make it '
            'smaller, or pass a larger max_pixels.'
        )
