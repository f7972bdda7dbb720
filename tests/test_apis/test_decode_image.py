import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kpu_mm.apis.decode_image import MAX_PIXELS, decode

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def encoded(image, kind='PNG', **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


def header(width, height):
    """A PNG of any size, of which there is nothing but the header."""
    chunk = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (
        b'\x89PNG\r\n\x1a\n'
        + struct.pack('>I', 13)
        + chunk
        + struct.pack('>I', zlib.crc32(chunk))
        + b'\0\0\0\x09IDAT'
    )


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_bgr_upright(backend):
    image = Image.fromarray(RGB)
    assert (decode(encoded(image), 'a', backend)[..., ::-1] == RGB).all()
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees clockwise
    data = encoded(image, exif=turned)
    expected = np.rot90(RGB, -1)
    assert (decode(data, 'a', backend)[..., ::-1] == expected).all()
    grey = encoded(Image.fromarray(RGB[..., 0]))
    assert (decode(grey, 'a', backend) == RGB[..., :1]).all()


def test_broken_files():
    data = encoded(Image.fromarray(RGB), 'JPEG')
    for broken in (data[: len(data) // 2], data[:-2], b'', b'hello', data[:9]):
        with pytest.raises(ValueError, match=r"^'x/y.jpg' is not an image"):
            decode(broken, 'x/y.jpg')


@pytest.mark.parametrize('side, told', [(10_000, 100), (60_000, 3600)])
def test_size_is_refused_by_the_header(side, told):
    message = f"^'big' has {told} million pixels, .* larger max_pixels"
    with pytest.raises(ValueError, match=message):
        decode(header(side, side), 'big')


def test_limit_is_the_caller_s():
    data = encoded(Image.fromarray(RGB))
    assert decode(data, 'a', max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(ValueError, match='more than the'):
        decode(data, 'a', max_pixels=599)
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS
