from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from kpu_mm.datasets import CorruptImageError
from kpu_mm.datasets.transforms import CropBox, EncodedImage

from ..conftest import encode


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_as_pillow_applies_it(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(1, (40, 56), exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    image = EncodedImage(data)
    assert image.size == upright.shape[:2]
    np.testing.assert_array_equal(image.pixels(image.size), upright)
    image = EncodedImage(data)
    part = image.pixels((20, 25), CropBox(3, 5, 28, 25))
    np.testing.assert_array_equal(part, upright[5:25, 3:28])


def test_large_jpeg_is_decoded_small_enough_but_no_smaller():
    data = encode(2, (400, 640))
    for target, decoded in [
        ((400, 640), (400, 640)),
        ((201, 320), (400, 640)),
        ((200, 320), (200, 320)),
        ((60, 90), (100, 160)),
        ((10, 10), (50, 80)),
    ]:
        assert EncodedImage(data).pixels(target).shape[:2] == decoded
    box = CropBox(100, 40, 420, 360)
    small = EncodedImage(data).pixels((100, 100), box)
    assert small.shape == (160, 160, 3)
    whole = np.asarray(Image.open(io.BytesIO(data)).resize((320, 200)))
    part = whole[20:180, 50:210].astype(int)
    assert np.abs(part - small).mean() < 2


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'RGBA', 'P', 'LA', '1'])
def test_all_modes_become_rgb(mode):
    source = Image.open(io.BytesIO(encode(3))).convert(mode)
    file = io.BytesIO()
    source.save(file, 'JPEG' if mode in ('L', 'CMYK') else 'PNG')
    data = file.getvalue()
    expected = np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))
    pixels = EncodedImage(data).pixels(expected.shape[:2])
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize('target', [(400, 640), (50, 50)])
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
@pytest.mark.parametrize('share', [0.3, 0.9])
def test_truncated_files_raise(kind, target, share):
    data = encode(4, (400, 640), format=kind)
    with pytest.raises(CorruptImageError):
        EncodedImage(data[: int(len(data) * share)]).pixels(target)
    with pytest.raises(CorruptImageError):
        EncodedImage(data[: int(len(data) * share)]).check()
    assert EncodedImage(data).check() == kind


def test_damaged_exif_is_no_reason_to_skip(recwarn):
    data = encode(5, exif=b'Exif\x00\x00II*\x00\x08\x00\x00\x00\x05\x00ab')
    image = EncodedImage(data)
    assert image.pixels(image.size).shape == (48, 64, 3)
    assert not recwarn.list


def test_decompression_bomb_is_an_error(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    for size in [(30, 40), (100, 100)]:
        with pytest.raises(CorruptImageError, match='bomb'):
            EncodedImage(encode(6, size))
    EncodedImage(encode(6, (20, 30)))


@pytest.mark.parametrize(
    'data, reason', [(b'', 'empty'), (b'<html>', 'cannot identify')]
)
def test_what_is_no_image_says_so(data, reason):
    with pytest.raises(CorruptImageError, match=reason):
        EncodedImage(data)
