"""One image gives the same pixels through every entry."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from kpu_mm.apis.read_images import decode, list_inputs, read_images
from kpu_mm.datasets import DataError, EncodedImage
from kpu_mm.datasets.encoded_image import FORMATS
from kpu_mm.datasets.image_transforms import DecodeResize
from kpu_mm.datasets.load_image import LoadImageFromFile

RGB = np.kron(np.random.default_rng(0).integers(0, 256, (6, 8, 3)), np.ones((4, 4, 1))).astype(
    np.uint8
)
GREY = RGB[..., 0]
DEEP = GREY.astype(np.uint16) * 256 + 37


def pillow(mode, kind, **options):
    file = io.BytesIO()
    Image.fromarray(RGB).convert(mode).save(file, kind, **options)
    return file.getvalue()


def tiff(array):
    file = io.BytesIO()
    tifffile.imwrite(file, array)
    return file.getvalue()


def opencv(array, extension):
    return cv2.imencode(extension, array)[1].tobytes()


def turned(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return pillow('RGB', kind, exif=exif)


FILES = {
    f'{kind}-{mode}': pillow(mode, kind)
    for kind, modes in dict(
        PNG=('L', 'LA', 'P', 'RGB', 'RGBA', '1'),
        TIFF=('L', 'LA', 'P', 'RGB', 'RGBA', '1', 'CMYK', 'F'),
        JPEG=('L', 'RGB', 'CMYK', 'YCbCr'),
        WEBP=('RGB', 'RGBA'),
        BMP=('L', 'P', 'RGB', '1'),
        TGA=('L', 'P', 'RGB', 'RGBA'),
        JPEG2000=('L', 'RGB', 'RGBA'),
        GIF=('P', 'L'),
        PPM=('L', 'RGB', '1'),
        PCX=('L', 'RGB', 'P'),
        ICO=('RGBA',),
        **(dict(AVIF=('RGB', 'RGBA')) if 'AVIF' in FORMATS else {}),
    ).items()
    for mode in modes
}
FILES |= {f'{k}-exif{o}': turned(k, o) for k in ('JPEG', 'PNG', 'WEBP', 'TIFF') for o in range(9)}
FILES |= {
    f'{kind}-animated': pillow(
        'RGB', kind, save_all=True, append_images=[Image.fromarray(255 - RGB)]
    )
    for kind in ('GIF', 'WEBP', 'PNG', 'TIFF')
}
FILES |= {
    'MPO': pillow('RGB', 'MPO', save_all=True, append_images=[Image.fromarray(255 - RGB)]),
    'JPEG-progressive': pillow('RGB', 'JPEG', progressive=True, quality=71, subsampling=2),
    'PNG-16': opencv(DEEP, '.png'),
    'PNG-16-rgb': opencv(np.stack([DEEP] * 3, 2), '.png'),
    'TIFF-16': tiff(DEEP),
    'TIFF-16-rgb': tiff(np.stack([DEEP] * 3, 2)),
    'TIFF-16-big': tiff(DEEP.astype('>u2')),
    'PPM-16': opencv(DEEP, '.pgm'),
    'TIFF-32': tiff(GREY.astype(np.int32)),
    'TIFF-float': tiff((GREY / 255).astype(np.float32)),
    'TIFF-float-255': tiff(GREY.astype(np.float32)),
}


def through_every_entry(data, tmp_path):
    path = tmp_path / 'image'
    path.write_bytes(data)
    size = EncodedImage(data).size
    yield EncodedImage(data).pixels(size)
    yield DecodeResize(min(size), max(size))(dict(bytes=data))['img']
    yield LoadImageFromFile()(dict(img_path=str(path)))['img'][..., ::-1]
    yield decode(data, 'image')[..., ::-1]
    loaded = Image.open(path)
    loaded.load()
    for image in read_images(list_inputs([path, Image.open(path), loaded])):
        yield image.bgr[..., ::-1]


@pytest.mark.parametrize('name', FILES)
def test_every_entry_gives_the_same_pixels(name, tmp_path):
    first, *others = through_every_entry(FILES[name], tmp_path)
    assert first.dtype == np.uint8 and first.shape[2:] == (3,)
    assert first.std() > 20
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize(
    'name',
    [
        'PNG-16',
        'PNG-16-rgb',
        'PPM-16',
        'TIFF-32',
        'TIFF-float',
        'TIFF-float-255',
        'PNG-L',
        'TIFF-16',
        'TIFF-16-rgb',
        'TIFF-16-big',
    ],
)
def test_numbers_of_other_types(name):
    grey = np.asarray(Image.fromarray(RGB).convert('L')) if name == 'PNG-L' else GREY
    pixels = EncodedImage(FILES[name]).pixels(GREY.shape)
    np.testing.assert_array_equal(pixels, np.stack([grey] * 3, 2))


@pytest.mark.parametrize('bad', [np.nan, np.inf, -1, 256])
def test_other_values_are_refused_by_file(bad, tmp_path):
    values = (GREY / 255).astype(np.float32)
    values[3, 4] = bad
    (tmp_path / 'a.tif').write_bytes(tiff(values))
    with pytest.raises(DataError, match=r"a\.tif' is not .*values from .* save it with"):
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'a.tif')))
    with pytest.raises(ValueError, match=r"a\.tif' is not .*values from"):
        list(read_images([str(tmp_path / 'a.tif')]))
    with pytest.raises(ValueError, match=r"image_000000' is not .*values from"):
        list(read_images([Image.fromarray(values)]))


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
def test_orientation_can_be_ignored(kind, tmp_path):
    path = tmp_path / 'image'
    for orientation in range(1, 9):
        path.write_bytes(turned(kind, orientation))
        stored = LoadImageFromFile(orientation='ignore')(dict(img_path=str(path)))['img']
        path.write_bytes(turned(kind, 1))
        np.testing.assert_array_equal(stored, LoadImageFromFile()(dict(img_path=str(path)))['img'])
    with pytest.raises(ValueError, match="`orientation` is 'no'"):
        LoadImageFromFile(orientation='no')


def test_labels_of_another_size(tmp_path):
    path = tmp_path / 'image.jpg'
    path.write_bytes(turned('JPEG', 6))
    sample = dict(img_path=str(path), height=32, width=24)
    assert LoadImageFromFile()(dict(sample))['img'].shape == (32, 24, 3)
    with pytest.raises(DataError, match=r"image\.jpg' is 24 x 32 .* 32 x 24.*'ignore'"):
        LoadImageFromFile()(dict(sample, height=24, width=32))
    with pytest.raises(DataError, match=r"'exif'"):
        LoadImageFromFile('ignore')(dict(sample))
    with pytest.raises(DataError, match=r'labels say 99 x 32: correct height and width'):
        LoadImageFromFile()(dict(sample, width=99))


@pytest.mark.parametrize('size', [(3000, 2), (1, 65535), (101, 1)])
def test_extreme_shapes_are_refused_by_file(size, tmp_path):
    path = tmp_path / 'a.png'
    Image.new('RGB', size).save(path)
    with pytest.raises(DataError, match=r"a\.png' is not .*the sides of .* a factor of 100\)"):
        LoadImageFromFile()(dict(img_path=str(path)))
    assert LoadImageFromFile(max_ratio=1e5)(dict(img_path=str(path)))['img'].shape == (
        *size[::-1],
        3,
    )
    array = np.zeros((*size[::-1], 3), np.uint8)
    for image in (str(path), Image.open(path), array):
        with pytest.raises(ValueError, match=f'{size[0]} x {size[1]} pixels, and sides .* of 100'):
            list(read_images([image]))
    for small in ((1, 1), (1, 100)):
        Image.new('RGB', small).save(path)
        assert LoadImageFromFile()(dict(img_path=str(path)))['img'].shape == (*small[::-1], 3)
        assert [i.bgr.shape for i in read_images([str(path)])] == [(*small[::-1], 3)]
