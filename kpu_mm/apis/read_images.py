"""Images from files, addresses, videos and memory, named."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import mmcv
import numpy as np
from PIL import Image, ImageOps

from .decode_image import MAX_PIXELS, check_size, decode
from .inputs import is_url, is_video

_TIMEOUT = 30  # seconds that a server may keep silent


class NamedImage(NamedTuple):
    """An image and what it is called.

    Args:
        bgr: (H, W, 3) uint8, BGR as OpenCV and OpenMMLab have it.
        path: Where it is from: a path, an address, or its name.
        name: For the files that are written about it, unique in a call.
    """

    bgr: np.ndarray
    path: str
    name: str


class ImageReader:
    """Reads images one after the other.

    Args:
        backend: MMCV's decoder of files, 'cv2' or 'pillow'. Defaults to
            'cv2'.
        max_pixels: Larger images are refused, files before they are
            decoded. Defaults to 50 million.
        video_stride: Every how many frames of a video one is taken.
            Defaults to 1.

    Raises:
        ValueError: If the stride is below 1.
    """

    def __init__(
        self,
        backend: str = 'cv2',
        max_pixels: int = MAX_PIXELS,
        video_stride: int = 1,
    ) -> None:
        if video_stride < 1:
            raise ValueError(f'video_stride={video_stride}: pass 1 or more.')
        self.backend = backend
        self.max_pixels = max_pixels
        self.video_stride = video_stride

    def read(self, items: Sequence[Any]) -> Iterator[NamedImage]:
        """Read what there is.

        Args:
            items: What :func:`list_inputs` gave.

        Yields:
            The images.

        Raises:
            FileNotFoundError: If a file or address is missing.
            TypeError: If an item is no image at all.
            ValueError: If an image is broken or too large; the message
                names it.
        """
        names: set[str] = set()
        for number, item in enumerate(items):
            for image in self._read(item, number):
                name, again = image.name, 0
                while name in names:
                    again += 1
                    name = f'{image.name}_{again}'
                names.add(name)
                yield image._replace(name=name)

    def _read(self, item: Any, number: int) -> Iterator[NamedImage]:
        """The image, or the frames of a video."""
        if is_video(item):
            yield from self._read_video(item)
        elif isinstance(item, str):
            path = urlsplit(item).path if is_url(item) else item
            data = _fetch(item) if is_url(item) else Path(item).read_bytes()
            bgr = decode(data, item, self.backend, self.max_pixels)
            yield NamedImage(bgr, item, Path(path).stem or 'image')
        else:
            name = f'image_{number:06d}'
            yield NamedImage(self._take(item, name), name, name)

    def _read_video(self, path: str) -> Iterator[NamedImage]:
        video = mmcv.VideoReader(path)
        check_size(video.resolution, path, self.max_pixels)
        frame = None
        for index, frame in enumerate(video):
            if index % self.video_stride == 0:
                yield NamedImage(frame, path, f'{Path(path).stem}_{index:06d}')
        if frame is None:
            raise ValueError(
                f"'{path}' is not a video that OpenCV can read; convert it "
                'to MP4 (H.264) or AVI.'
            )

    def _take(self, image: Any, name: str) -> np.ndarray:
        """A PIL image, or an array as OpenCV has it, to BGR."""
        if isinstance(image, Image.Image):
            check_size(image.size, name, self.max_pixels)
            rgb = ImageOps.exif_transpose(image).convert('RGB')
            return np.ascontiguousarray(np.asarray(rgb)[..., ::-1])
        if not isinstance(image, np.ndarray):
            raise TypeError(
                f'an input is a {type(image).__name__}: pass a path, an '
                'address, a PIL image or a uint8 array (H, W, 3) in BGR.'
            )
        grey = image.ndim == 2
        if image.dtype != np.uint8 or not (grey or image.shape[2:] == (3,)):
            raise ValueError(
                f'an array is {image.shape} of {image.dtype}: pass uint8, '
                '(H, W, 3) in BGR or (H, W) in grey.'
            )
        if not image.size:
            raise ValueError('an array has no pixels; pass an image.')
        check_size(image.shape, name, self.max_pixels)
        return np.repeat(image[..., None], 3, axis=2) if grey else image


def _fetch(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:
            data: bytes = answer.read()
            return data
    except (OSError, ValueError) as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise FileNotFoundError(
            f"'{address}' cannot be fetched: {reason}."
        ) from error
