"""What decoders give as it is stored: RGB of any mode, OpenCV's JPEG, EXIF."""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress

import cv2
import numpy as np
from PIL import Image

_ORIENTATION_TAG = 0x0112
# where Pillow's getexif finds an orientation
_EXIF_KEYS = {'exif', 'xmp', 'XML:com.adobe.xmp', 'Raw profile type exif'}
# EXIF orientations, and what makes pixels that are stored so upright
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# OpenCV decodes a JPEG at 1 / 8, 1 / 4 or 1 / 2 of its size much faster.
REDUCTIONS = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}
# The formats that Pillow opens. It knows many more, whose decoders are rarely
# used and some of which call other programs (EPS). MPO, which cameras write,
# is opened as JPEG. AVIF came with Pillow 11.3.
_WANTED = 'AVIF BMP DIB GIF ICO JPEG JPEG2000 PCX PNG PPM TGA TIFF WEBP'
Image.init()
FORMATS = tuple(name for name in _WANTED.split() if name in Image.OPEN)
# The first words of what libjpeg says of damaged files: pixels are lost, or are
# all there. Some cameras write bytes too many.
_LOST = re.compile(r'Corrupt JPEG data: (?!\d+ extraneous)|Premature end of|Inconsistent prog')
_HARMLESS = re.compile(
    r'Corrupt JPEG data: \d+ ext|Warning: unknown JFIF|Unknown Adobe|Invalid SOS'
)
# One thread at a time puts the pipe in the place of stderr, and none while a worker is forked.
_lock = threading.Lock()
_pipe: list[int] = []


def _open_pipe() -> None:
    """Open a pipe of this process alone: workers must not read each other's lines."""
    for end in _pipe:
        os.close(end)
    _pipe[:] = os.pipe()
    for end in _pipe:
        # What does not fit into it is dropped, and nothing waits for more.
        os.set_blocking(end, False)


def _after_fork() -> None:
    _lock.release()
    _open_pipe()


_open_pipe()
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_fork)


def decode_jpeg(data: bytes, reduction: int) -> tuple[np.ndarray, str]:
    """Decode a JPEG with OpenCV, as it is stored.

    Args:
        data: The file.
        reduction: A key of ``REDUCTIONS``: sides become so many times shorter.

    Returns:
        (h, w, 3) uint8 BGR; and what libjpeg says if pixels are lost, else ''.

    Raises:
        ValueError: If OpenCV cannot decode it.
    """
    flags = REDUCTIONS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    pixels, lines = _imdecode(np.frombuffer(data, np.uint8), flags)
    lost = [line for line in lines if _LOST.match(line)]
    for line in lines:
        if line not in lost and not _HARMLESS.match(line):
            # written by another thread
            os.write(2, f'{line}\n'.encode(errors='surrogateescape'))
    if pixels is None:
        raise ValueError('; '.join(['broken JPEG data', *lost]))
    return pixels, '; '.join(lost)


def _imdecode(data: np.ndarray, flags: int) -> tuple[np.ndarray | None, list[str]]:
    """Call OpenCV, and catch the lines that are written to stderr meanwhile.

    libjpeg says there, and only there, that data are corrupt, without the
    file's name.
    """
    with _lock:
        try:
            stderr = os.dup(2)
        except OSError:  # it is closed
            return cv2.imdecode(data, flags), []
        os.dup2(_pipe[1], 2)
        try:
            pixels = cv2.imdecode(data, flags)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        text = b''
        with suppress(BlockingIOError):
            while True:
                text += os.read(_pipe[0], 1 << 16)
    return pixels, text.decode(errors='surrogateescape').splitlines()


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


def read_orientation(image: Image.Image, wanted: str) -> int:
    """Read how to turn the pixels that Pillow gives.

    Args:
        image: The image.
        wanted: 'exif' for upright pixels, 'ignore' for pixels as they are stored.

    Returns:
        An EXIF orientation, 1 to 8.
    """
    if image.format == 'TIFF':
        # Pillow itself turns a TIFF while it decodes; 6 and 8 undo each other.
        stored = getattr(image, 'tag_v2', {}).get(_ORIENTATION_TAG, 1)
        return {6: 8, 8: 6}.get(stored, stored) if wanted == 'ignore' and stored in UPRIGHT else 1
    # A file without the data needs no parser; getexif would decode a PNG for it.
    is_file = bool(image.format) and not getattr(image, '_exif', None)
    if wanted == 'ignore' or (is_file and not _EXIF_KEYS & image.info.keys()):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # whatever Pillow raises on damaged EXIF data
        return 1
    return value if value in UPRIGHT else 1
