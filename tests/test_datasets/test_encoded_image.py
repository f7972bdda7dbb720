from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageOps

from kpu_mm.datasets import CorruptImageError, CropBox, EncodedImage
from kpu_mm.datasets.encoded_image import FORMATS, MAX_PIXELS, MAX_RATIO

from .conftest import encode


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


@pytest.mark.parametrize('data, reason', [(b'', 'empty'), (b'<html>', 'cannot identify')])
def test_what_is_no_image_says_so(data, reason):
    with pytest.raises(CorruptImageError, match=reason):
        EncodedImage(data)


@pytest.mark.parametrize('kind', [RuntimeError, NotImplementedError, KeyError])
def test_whatever_a_decoder_raises_is_a_corrupt_image(kind, monkeypatch):
    image = EncodedImage(encode(0, (8, 8), format='PNG'), 'a.png')

    def fail(*_):
        raise kind('no way')

    monkeypatch.setattr(image._image, 'convert', fail)
    with pytest.raises(CorruptImageError, match=r'a\.png: .*no way'):
        image.pixels((8, 8))


def test_other_formats_are_not_opened():
    buffer = io.BytesIO()
    Image.new('RGB', (4, 4)).save(buffer, format='DDS')
    with pytest.raises(CorruptImageError, match='cannot identify'):
        EncodedImage(buffer.getvalue())


@pytest.mark.parametrize('format', ['JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP', 'GIF', 'AVIF', 'PPM'])
def test_damage_is_a_skip_and_nothing_else(format):
    if format not in FORMATS:
        pytest.skip(f'this Pillow has no {format}')
    rng = random.Random(5)
    buffer = io.BytesIO()
    pixels = np.random.default_rng(5).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, format=format)
    whole = buffer.getvalue()
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = bytes(data[: rng.randrange(1, len(data) + 1)])
        try:
            image = EncodedImage(data, 'x', MAX_PIXELS, MAX_RATIO)
            assert image.pixels((16, 16)).dtype == np.uint8
        except CorruptImageError as error:
            assert error.name == 'x'
            assert '\n' not in error.reason
