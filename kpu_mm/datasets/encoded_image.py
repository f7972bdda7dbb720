"""Decode no more of an image than its use needs."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from .image_table import printable

_ORIENTATION_TAG = 0x0112
# where Pillow's getexif finds an orientation
_EXIF_KEYS = {'exif', 'xmp', 'XML:com.adobe.xmp', 'Raw profile type exif'}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REDUCTIONS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}
# The formats that Pillow opens. It knows many more, whose decoders are rarely
# used and some of which call other programs (EPS). MPO, which cameras write,
# is opened as JPEG. AVIF came with Pillow 11.3.
_WANTED = (
    'AVIF',
    'BMP',
    'DIB',
    'GIF',
    'ICO',
    'JPEG',
    'JPEG2000',
    'PCX',
    'PNG',
    'PPM',
    'TGA',
    'TIFF',
    'WEBP',
)
Image.init()
FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)
# 7000 x 7000, more than cameras give
MAX_PIXELS = 50_000_000
# At 1333 pixels on the longer side 67 are left on the shorter one, more than
# the 32 that KPUBackbone needs.
MAX_RATIO = 20.0


class CorruptImageError(Exception):
    """An image cannot be read or decoded; the dataset skips it.

    Args:
        name: Which image, as its source names it; made printable.
        reason: What is wrong with it, in a few words.
    """

    def __init__(self, name: str, reason: str) -> None:
        name = printable(name)
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f'{self.name}: {self.reason}'


class DataError(ValueError):
    """A file contradicts its labels or cannot be used; the run ends with the sentence.

    Wherever it is raised, a loader's worker included, ``tools/train.py`` and
    ``tools/test.py`` print the message alone.
    """


class CropBox(NamedTuple):
    """Part of an upright image, in its pixels; right and bottom excluded."""

    left: int
    top: int
    right: int
    bottom: int


class EncodedImage:
    """An image whose header is read and whose pixels are not.

    Sizes and boxes are those of the upright image. All of this package gets
    its RGB uint8 here; alpha is dropped, and see :func:`to_rgb`.

    Args:
        data: The encoded image, or one that Pillow has opened.
        name: What to call it in errors. Defaults to 'image'.
        max_pixels: Most pixels it may have; Pillow's own limit of 89 million
            holds as well. Defaults to None, Pillow's alone.
        max_ratio: Most that its longer side may have over its shorter one.
            Defaults to None, any.
        orientation: 'exif' turns the image as its EXIF data (of a TIFF, its
            tag) say; 'ignore' leaves it as stored. Defaults to 'exif'.

    Raises:
        CorruptImageError: If this is not an image in one of ``FORMATS``, has
            more pixels than that, or is longer. The header tells; no pixel
            is decoded.
    """

    def __init__(
        self,
        data: bytes | Image.Image,
        name: str = 'image',
        max_pixels: int | None = None,
        max_ratio: float | None = None,
        orientation: str = 'exif',
    ) -> None:
        self._name = name
        self._data = data if isinstance(data, bytes) else b''
        if isinstance(data, bytes) and not data:
            raise CorruptImageError(name, 'the file is empty')
        # Pillow warns above its limit of pixels and raises at twice of it.
        with self._decoding(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            warnings.simplefilter('error', Image.DecompressionBombWarning)
            if isinstance(data, bytes):
                data = Image.open(io.BytesIO(data), formats=FORMATS)
            self._image: Image.Image = data
            self._orientation = _orientation(self._image, orientation)
        width, height = self._image.size
        if min(width, height) < 1:
            raise CorruptImageError(name, f'{width} x {height} are no pixels')
        if max_pixels is not None and width * height > max_pixels:
            raise CorruptImageError(name, f'{width} x {height} pixels are more than {max_pixels}')
        if max_ratio is not None and max(width, height) > max_ratio * min(width, height):
            raise CorruptImageError(
                name,
                f'the sides of {width} x {height} pixels differ by more than '
                f'a factor of {max_ratio:g}',
            )

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

    def pixels(
        self, size: tuple[int, int], box: CropBox | None = None, bgr: bool = False
    ) -> np.ndarray:
        """Decode a part of the image, with at least the pixels needed.

        A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that still
        has as many pixels as the part will be resized to. At these scales
        the part's borders are rounded to whole pixels.

        Args:
            size: Height and width that the part will be resized to.
            box: The part. Defaults to None, all of the image.
            bgr: Whether to return BGR. Defaults to False.

        Returns:
            RGB or BGR, (h, w, 3) uint8.

        Raises:
            CorruptImageError: If the pixels cannot be decoded.
        """
        part = self._stored(box)
        height, width = size[::-1] if self._is_turned else size
        factor = min((part.right - part.left) / width, (part.bottom - part.top) / height)
        # the largest of 8, 4 and 2 that leaves enough pixels
        reduction = next((r for r in _REDUCTIONS if r <= factor), 1)
        with self._decoding():
            if self._is_plain_jpeg:
                pixels = self._decode_jpeg(reduction)
            else:
                reduction = 1
                pixels = to_rgb(self._image)
        left, top, right, bottom = _whole_pixels(
            part, reduction, (pixels.shape[1], pixels.shape[0])
        )
        pixels = pixels[top:bottom, left:right]
        # OpenCV decodes to BGR, Pillow to RGB.
        if self._is_plain_jpeg != bgr:
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        if self._orientation in _UPRIGHT:
            image = Image.fromarray(pixels)
            return np.array(image.transpose(_UPRIGHT[self._orientation]))
        return pixels if pixels.flags.writeable else pixels.copy()

    @property
    def _is_plain_jpeg(self) -> bool:
        """Whether OpenCV gives the pixels that Pillow would.

        Both use libjpeg-turbo, and OpenCV saves copies of the whole image.
        It does not report a file cut short, which lacks the end marker and
        so goes to Pillow, which does.
        """
        return (
            self._image.format == 'JPEG'
            and self._image.mode in ('RGB', 'L')
            and self._data.rstrip(b'\0').endswith(b'\xff\xd9')
        )

    def _decode_jpeg(self, reduction: int) -> np.ndarray:
        """Decode at 1/reduction, (h, w, 3) uint8 BGR, as stored."""
        flags = _REDUCTIONS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(self._data, np.uint8), flags)
        if pixels is None:
            raise CorruptImageError(self._name, 'broken JPEG data')
        return pixels

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
        except CorruptImageError:
            raise
        except UnidentifiedImageError as error:
            # Pillow's own message holds a memory address.
            reason = 'cannot identify the image format'
            raise CorruptImageError(self._name, reason) from error
        # Whatever a decoder raises is a fault in the data: RuntimeError for
        # AVIF, NotImplementedError for BLP, MemoryError for absurd headers.
        except Exception as error:
            reason = ' '.join(str(error).split()) or type(error).__name__
            raise CorruptImageError(self._name, reason) from error


def to_rgb(image: Image.Image) -> np.ndarray:
    """Turn an image of any mode into RGB.

    - 16 bits (grey): the high byte, as Pillow and OpenCV reduce colours.
    - 32-bit integers in [0, 255] stay; other values are refused.
    - Floats in [0, 1] times 255, otherwise in [0, 255], rounded; others and NaN are refused.

    Args:
        image: The image, as it is stored.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: If values are refused, or Pillow cannot convert the mode.
    """
    if not image.mode.startswith(('I', 'F')):
        return np.asarray(image.convert('RGB'))
    values = np.asarray(image)
    low, high = values.min(), values.max()
    # Pillow opens PPM of 16 bits with 32, scaled to the range of 16.
    if image.mode.startswith('I;16') or (image.format == 'PPM' and image.mode == 'I'):
        values = values >> 8
    # NaN fails this comparison as well.
    elif not 0 <= low <= high <= 255:
        raise ValueError(
            f'pixel values from {low:g} to {high:g}; save it with 8 or 16 bits, or as floats '
            'in [0, 1]'
        )
    elif image.mode == 'F':
        values = np.rint(values * 255 if high <= 1 else values)
    # (H, W) -> (H, W, 3)
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def _orientation(image: Image.Image, wanted: str) -> int:
    """Choose how to turn the pixels that Pillow gives, as EXIF orientations 1 to 8."""
    if image.format == 'TIFF':
        # Pillow itself turns a TIFF while it decodes; 6 and 8 undo each other.
        stored = getattr(image, 'tag_v2', {}).get(_ORIENTATION_TAG, 1)
        return {6: 8, 8: 6}.get(stored, stored) if wanted == 'ignore' and stored in _UPRIGHT else 1
    # A file without the data needs no parser; getexif would decode a PNG for it.
    is_file = bool(image.format) and not getattr(image, '_exif', None)
    if wanted == 'ignore' or (is_file and not _EXIF_KEYS & image.info.keys()):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # whatever Pillow raises on damaged EXIF data
        return 1
    return value if value in _UPRIGHT else 1


def _whole_pixels(box: CropBox, reduction: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Reduce a box to whole pixels of an image of (width, height)."""
    left = min(round(box.left / reduction), size[0] - 1)
    top = min(round(box.top / reduction), size[1] - 1)
    right = min(max(round(box.right / reduction), left + 1), size[0])
    bottom = min(max(round(box.bottom / reduction), top + 1), size[1])
    return left, top, right, bottom
