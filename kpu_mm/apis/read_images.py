"""Images from files, URLs, videos and memory, checked and named."""

from __future__ import annotations

import glob
import os
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import mmcv
import numpy as np
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from kpu_mm.datasets.encoded_image import MAX_PIXELS, MAX_RATIO, CorruptImageError, EncodedImage
from kpu_mm.datasets.image_table import printable

VIDEO_EXTENSIONS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg')
# Seconds without an answer after which a download is given up.
TIMEOUT = 30
# Bytes of a name: file systems take 255, and '_000012_1.json' may follow.
_LONGEST_NAME = 200


class NamedImage(NamedTuple):
    """An image and its names.

    Args:
        bgr: (H, W, 3) uint8, BGR as OpenCV and OpenMMLab have it.
        path: Its path or URL; the name for an image in memory.
        name: For the files that are written about it, unique in a call.
    """

    bgr: np.ndarray
    path: str
    name: str


def list_inputs(inputs: Any) -> list[Any]:
    """Expand folders, wildcards and nested lists.

    Args:
        inputs: A path, URL, folder, wildcard, image in memory, or a list of
            these.

    Returns:
        Paths and URLs as str, sorted within a folder or wildcard, and
        images in memory.

    Raises:
        FileNotFoundError: If a file or folder is missing, or a folder or
            wildcard has no image.
        ValueError: If a list is empty.
    """
    if isinstance(inputs, (list, tuple)):
        found = [item for part in inputs for item in list_inputs(part)]
        if not found:
            raise ValueError('the list of inputs is empty; pass an image.')
        return found
    if not isinstance(inputs, (str, os.PathLike)) or is_url(inputs):
        return [inputs]
    path = Path(inputs).expanduser()
    if path.is_dir():
        extensions = IMG_EXTENSIONS + VIDEO_EXTENSIONS
        names = sorted(os.listdir(path))
        files = [n for n in names if n.lower().endswith(extensions)]
        if not files:
            raise FileNotFoundError(
                f"the folder '{printable(inputs)}' has no image; their names end in "
                f'{", ".join(IMG_EXTENSIONS)}.'
            )
        return [str(path / name) for name in files]
    # A name with [] in it is a file first and a wildcard second.
    matches = [path] if path.exists() else glob.glob(str(path), recursive=True)
    files = sorted(str(match) for match in matches if Path(match).is_file())
    if not files:
        raise FileNotFoundError(
            f"'{printable(inputs)}' does not exist, and as a wildcard no file matches "
            'it: pass an image, a folder, a wildcard, a video or a URL.'
        )
    return files


def is_url(text: Any) -> bool:
    """Whether this is a URL from which a file can be downloaded.

    Args:
        text: A path, a URL or an image.
    """
    return isinstance(text, str) and text.startswith(('http://', 'https://'))


def is_video(item: Any) -> bool:
    """Whether this is the path of a video, by its extension.

    Args:
        item: A path, a URL or an image.

    Raises:
        ValueError: If it is the URL of a video.
    """
    if not isinstance(item, str):
        return False
    path = urlsplit(item).path if is_url(item) else item
    if not path.lower().endswith(VIDEO_EXTENSIONS):
        return False
    if is_url(item):
        raise ValueError(f"'{item}' is a video: download it and pass the file's path.")
    return True


def read_images(
    items: Sequence[Any],
    orientation: str = 'exif',
    max_pixels: int = MAX_PIXELS,
    video_stride: int = 1,
) -> Iterator[NamedImage]:
    """Read images one after the other.

    Args:
        items: What :func:`list_inputs` returned.
        orientation: Or 'ignore', as :class:`EncodedImage` takes it. Defaults
            to 'exif'.
        max_pixels: Larger images are refused, files before they are
            decoded. Defaults to 50 million.
        video_stride: Every how many frames of a video one is taken.
            Defaults to 1.

    Yields:
        The images.

    Raises:
        FileNotFoundError: If a file or URL is missing.
        TypeError: If an item is no image at all.
        ValueError: If an image is broken or too large; the message names it.
    """
    names: set[str] = set()
    for number, item in enumerate(items):
        if is_video(item):
            images = _read_video(item, max_pixels, video_stride)
        elif isinstance(item, str):
            path = urlsplit(item).path if is_url(item) else item
            # The path of a URL is without its query.
            data = _download(item) if is_url(item) else Path(item).read_bytes()
            bgr = decode(data, printable(item), orientation, max_pixels)
            images = iter([NamedImage(bgr, item, _short_stem(path) or 'image')])
        else:
            name = f'image_{number:06d}'
            bgr = _convert(item, name, orientation, max_pixels)
            images = iter([NamedImage(bgr, name, name)])
        for image in images:
            # Two folders may have files of one name.
            name, copies = image.name, 0
            while name in names:
                copies += 1
                name = f'{image.name}_{copies}'
            names.add(name)
            yield image._replace(name=name)


def _short_stem(path: str) -> str:
    """The stem of a path, cut to a length to which more can be added."""
    # A character that is cut in two, or is not UTF-8, is left out.
    return os.fsencode(Path(path).stem)[:_LONGEST_NAME].decode('utf-8', 'ignore')


def _read_video(path: str, max_pixels: int, stride: int) -> Iterator[NamedImage]:
    video = mmcv.VideoReader(path)
    _check_size((video.height, video.width), path, max_pixels)
    frame = None
    for index, frame in enumerate(video):
        if index % stride == 0:
            yield NamedImage(frame, path, f'{_short_stem(path)}_{index:06d}')
    # OpenCV gives no frames of a file that it cannot read, and no error.
    if frame is None:
        raise ValueError(
            f"'{path}' is not a video that OpenCV can read; convert it to MP4 (H.264) or AVI."
        )


def _convert(image: Any, name: str, orientation: str, max_pixels: int) -> np.ndarray:
    """Convert a PIL image, or check an array of OpenCV's kind; to BGR."""
    if isinstance(image, Image.Image):
        return decode(image, name, orientation, max_pixels)
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f'an input is a {type(image).__name__}: pass a path, a URL, a PIL '
            'image or a uint8 array (H, W, 3) in BGR.'
        )
    # An alpha channel or a channel axis in front is ambiguous, so refused.
    grey = image.ndim == 2
    if image.dtype != np.uint8 or not (grey or image.shape[2:] == (3,)):
        raise ValueError(
            f'an array is {image.shape} of {image.dtype}: pass uint8, '
            '(H, W, 3) in BGR or (H, W) in grey.'
        )
    if not image.size:
        raise ValueError('an array has no pixels; pass an image.')
    _check_size(image.shape[:2], name, max_pixels)
    # (H, W) -> (H, W, 3)
    return np.repeat(image[..., None], 3, axis=2) if grey else image


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            data: bytes = answer.read()
            return data
    except (OSError, ValueError) as error:
        # Some messages have line breaks, and some errors no message.
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise FileNotFoundError(f"'{url}' cannot be downloaded: {reason}.") from error


def decode(
    data: bytes | Image.Image, name: str, orientation: str = 'exif', max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode an image, or say in one sentence what is wrong with it.

    Args:
        data: The file, or an image of Pillow.
        name: What to call it in errors.
        orientation: 'exif' turns it upright, 'ignore' leaves it as it is
            stored. Defaults to 'exif'.
        max_pixels: Larger images are refused, by their header. Pillow's own
            limit of 89 million, ``PIL.Image.MAX_IMAGE_PIXELS``, holds as
            well. Defaults to 50 million.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        ValueError: If it is no image, broken or too large.
    """
    try:
        image = EncodedImage(data, name, orientation=orientation)
        _check_size(image.size, name, max_pixels)
        bgr = image.pixels(image.size, bgr=True)
        image.warn_of_damage()
        return bgr
    except CorruptImageError as error:
        raise ValueError(
            f"'{name}' is not an image that can be decoded ({error.reason}); replace it."
        ) from error


def _check_size(size: tuple[int, ...], name: str, max_pixels: int) -> None:
    height, width = size
    pixels = height * width
    # A video that OpenCV cannot read has none.
    if pixels and max(size) > MAX_RATIO * min(size):
        raise ValueError(
            f"'{name}' is {width} x {height} pixels, and sides that differ by more than a factor "
            f'of {MAX_RATIO:g} are not taken; cut it into parts.'
        )
    if pixels > max_pixels:
        raise ValueError(
            f"'{name}' has {pixels / 1e6:.0f} million pixels, more than the "
            f'{max_pixels / 1e6:.0f} million that are taken; make it '
            'smaller, or pass a larger max_pixels.'
        )
