"""Decode no more of an image than its use needs."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..errors import CorruptImageError

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise on bad data, as far as seen.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class CropBox(NamedTuple):
    """Part of an upright image, in its pixels; right and bottom excluded."""

    left: float
    top: float
    right: float
    bottom: float


class EncodedImage:
    """An image whose header is read and whose pixels are not.

    Sizes and boxes are those of the upright image: the EXIF orientation is
    honoured, as MMCV's loading does.

    Args:
        data: The encoded image.
        name: What to call it in errors.

    Raises:
        CorruptImageError: If this is not an image, or one of so many pixels
            that Pillow warns of a decompression bomb.
    """

    def __init__(self, data: bytes, name: str = 'image') -> None:
        self._name = name
        if not data:
            raise CorruptImageError(name, 'the file is empty')
        with self._decoding(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            self._image: Image.Image = Image.open(io.BytesIO(data))
            self._orientation = _orientation(self._image)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        width, height = self._image.size
        return (width, height) if self._is_turned else (height, width)

    def check(self) -> str:
        """Decode all pixels.

        Returns:
            The name of the format, such as ``'JPEG'``.

        Raises:
            CorruptImageError: If that fails.
        """
        with self._decoding():
            self._image.load()
        return str(self._image.format)

    def resized(
        self,
        size: tuple[int, int],
        resample: Image.Resampling,
        box: CropBox | None = None,
    ) -> np.ndarray:
        """Decode, crop and resize in one go.

        A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that still
        has the pixels asked for.

        Args:
            size: Height and width of the result.
            resample: Pillow's interpolation.
            box: The part to show. Defaults to None, all of it.

        Returns:
            RGB, (H, W, 3) uint8.

        Raises:
            CorruptImageError: If the pixels cannot be decoded.
        """
        height, width = size[::-1] if self._is_turned else size
        with self._decoding():
            image, area = self._decode(self._stored(box), height, width)
        image = image.resize((width, height), resample, box=area)
        if self._orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[self._orientation])
        return np.array(image.convert('RGB'))

    def _decode(
        self, box: CropBox, height: int, width: int
    ) -> tuple[Image.Image, tuple[float, float, float, float]]:
        """Decode at the least sufficient scale; return the box at it."""
        image = self._image
        full_width, full_height = image.size
        factor = min(
            (box.right - box.left) / width, (box.bottom - box.top) / height
        )
        drafted = None
        if factor >= 2:
            # Half a pixel more guards against rounding below the need.
            drafted = image.draft(
                None,
                (int(full_width / factor), int(full_height / factor)),
            )
        scale = drafted[1][2] / full_width if drafted else 1.0
        image.load()
        if image.mode not in ('RGB', 'L'):
            # Palettes and the like cannot be interpolated.
            image = image.convert('RGB')
        area = (
            box.left * scale,
            box.top * scale,
            min(box.right * scale, image.width),
            min(box.bottom * scale, image.height),
        )
        return image, area

    @property
    def _is_turned(self) -> bool:
        """Whether height and width are stored the other way round."""
        return self._orientation >= 5

    def _stored(self, box: CropBox | None) -> CropBox:
        """Turn a box of the upright image into one of the stored image."""
        width, height = self._image.size
        if box is None:
            return CropBox(0, 0, width, height)
        left, top, right, bottom = box
        if self._is_turned:
            # Orientations 5 to 8 are 1, 4, 3, 2 after a transposition.
            left, top, right, bottom = top, left, bottom, right
        mirrored_x = self._orientation in (2, 3, 7, 8)
        mirrored_y = self._orientation in (3, 4, 6, 7)
        if mirrored_x:
            left, right = width - right, width - left
        if mirrored_y:
            top, bottom = height - bottom, height - top
        return CropBox(left, top, right, bottom)

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        """Turn what decoders raise into one error."""
        try:
            yield
        except _DECODE_ERRORS as error:
            reason = ' '.join(str(error).split()) or type(error).__name__
            raise CorruptImageError(self._name, reason) from error


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; damaged EXIF data count as 1."""
    if 'exif' not in image.info:
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODE_ERRORS:
        return 1
    return value if value in _UPRIGHT else 1


def resampling(name: str) -> Image.Resampling:
    """Look up Pillow's interpolation by its name in lower case.

    Args:
        name: For example ``'bilinear'`` or ``'bicubic'``.

    Raises:
        ValueError: If there is none of that name.
    """
    names = [method.name.lower() for method in Image.Resampling]
    if name not in names:
        raise ValueError(
            f"`interpolation` is '{name}'; choose one of {names}."
        )
    return Image.Resampling[name.upper()]
