"""Decode no more of an image than its use needs."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmengine.logging import print_log
from PIL import Image, UnidentifiedImageError
from torch.nn.functional import interpolate

from .decoders import FORMATS, REDUCTIONS, UPRIGHT, decode_jpeg, read_orientation, to_rgb
from .image_table import printable

# 7000 x 7000, more than cameras give
MAX_PIXELS = 50_000_000
# of one side over the other. 3000 x 2 pixels would become 1333 x 0, or where the
# shorter side counts 336,000 x 224.
MAX_RATIO = 100.0


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

    Attributes:
        damage: What is wrong with a JPEG of which pixels are lost, once it is
            decoded; else ''.

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
        self.damage = ''
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
            self._orientation = read_orientation(self._image, orientation)
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
        reduction = next((r for r in REDUCTIONS if r <= factor), 1)
        with self._decoding():
            if self._is_plain_jpeg:
                pixels, self.damage = decode_jpeg(self._data, reduction)
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
        if self._orientation in UPRIGHT:
            image = Image.fromarray(pixels)
            return np.array(image.transpose(UPRIGHT[self._orientation]))
        return pixels if pixels.flags.writeable else pixels.copy()

    def warn_of_damage(self) -> None:
        """Log a line if pixels were lost when the image was decoded."""
        if self.damage:
            print_log(
                f"'{printable(self._name)}' is damaged ({self.damage}); what is left of its "
                'pixels is used.',
                logger='current',
                level=logging.WARNING,
            )

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


def _whole_pixels(box: CropBox, reduction: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Reduce a box to whole pixels of an image of (width, height)."""
    left = min(round(box.left / reduction), size[0] - 1)
    top = min(round(box.top / reduction), size[1] - 1)
    right = min(max(round(box.right / reduction), left + 1), size[0])
    bottom = min(max(round(box.bottom / reduction), top + 1), size[1])
    return left, top, right, bottom


def resize_image(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize photographs as Pillow does, to two grey levels, but faster.

    Args:
        image: (h, w, 3) uint8.
        size: Height and width of the result.
        interpolation: ``'bilinear'`` or ``'bicubic'``.

    Returns:
        (H, W, 3) uint8.
    """
    if image.shape[:2] == size:
        return image
    # (h, w, 3) -> (1, 3, h, w) in channels-last memory: torch has a
    # vectorised kernel for exactly this layout and type.
    pixels = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
    resized = interpolate(pixels, size, mode=interpolation, antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
