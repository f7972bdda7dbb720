"""What may be passed to an Inferencer, from files to arrays."""

import io
import os
import struct
import threading
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from PIL import Image

from kpu_mm.apis.read_images import MAX_PIXELS, decode, is_video, list_inputs, read_images

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    for name in ('b.PNG', 'a.jpg', 'clip.avi', 'notes.txt', 'deep/c.webp'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(inputs):
    return [item.rpartition('/')[2] for item in list_inputs(inputs)]


def test_folders_and_wildcards(folder):
    assert names(folder) == names(str(folder)) == ['a.jpg', 'b.PNG', 'clip.avi']
    assert names(f'{folder}/*.jpg') == ['a.jpg']
    assert names(f'{folder}/**/*.[jw]*') == ['a.jpg', 'c.webp']
    # what is named is taken, whatever its suffix
    assert names(folder / 'notes.txt') == ['notes.txt']


def test_lists_and_memory(folder):
    array = np.zeros((4, 4, 3), np.uint8)
    found = list_inputs([array, [folder / 'a.jpg', f'{folder}/*.PNG'], 'http://x/y'])
    assert found[0] is array
    assert found[1:] == [f'{folder}/a.jpg', f'{folder}/b.PNG', 'http://x/y']
    assert list_inputs(array)[0] is array


def test_what_is_missing(folder):
    with pytest.raises(FileNotFoundError, match=r"where.jpg' does not exist"):
        list_inputs([folder / 'a.jpg', folder / 'nowhere.jpg'])
    with pytest.raises(FileNotFoundError, match='no file matches'):
        list_inputs(f'{folder}/*.bmp')
    (folder / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty' has no image"):
        list_inputs(folder / 'empty')
    with pytest.raises(ValueError, match='list of inputs is empty'):
        list_inputs([])


def test_videos(video):
    assert is_video(str(video)) and not is_video('a.jpg')
    assert not is_video(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match='download it'):
        is_video('https://host/clip.mp4?size=1')


def read(*items, **kwargs):
    return list(read_images(list_inputs(list(items)), **kwargs))


@pytest.fixture
def server(pictures, monkeypatch):
    monkeypatch.setenv('no_proxy', '*')

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = partial(Quiet, directory=str(pictures))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{httpd.server_port}'
        httpd.shutdown()
        thread.join()


def test_one_image_in_every_form(pictures, server):
    path = pictures / 'a.png'
    bgr = cv2.imread(str(path))
    images = read(path, f'{server}/a.png?size=1', bgr, Image.open(path))
    for image in images:
        assert image.bgr.dtype == np.uint8 and (image.bgr == bgr).all()
    assert [i.name for i in images] == ['a', 'a_1', 'image_000002', 'image_000003']
    assert images[0].path == str(path)
    assert images[1].path == f'{server}/a.png?size=1'


def test_pil_images_of_other_modes(pictures):
    image = Image.open(pictures / 'a.png')
    rgba, grey = image.convert('RGBA'), image.convert('L')
    found = read(rgba, grey, np.asarray(grey))
    assert (found[0].bgr[..., ::-1] == np.asarray(image)).all()
    for one in found[1:]:
        assert (one.bgr == np.asarray(grey)[..., None]).all()
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    assert (read(image)[0].bgr == found[0].bgr[::-1, ::-1]).all()


def test_frames_of_a_video(video, pictures):
    found = read(video, pictures / 'a.png', video_stride=3)
    assert [i.name for i in found] == ['clip_000000', 'clip_000003', 'clip_000006', 'a']
    assert [round(i.bgr.mean()) for i in found[:3]] == [0, 90, 180]
    assert found[0].path == str(video)


def test_the_message_names_the_file(pictures, tmp_path):
    for name in ('a.png', 'b.png', 'c.png'):
        (tmp_path / name).write_bytes((pictures / name).read_bytes())
    whole = (tmp_path / 'b.png').read_bytes()
    (tmp_path / 'b.png').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"b\.png' is not an image"):
        read(tmp_path)
    (tmp_path / 'b.avi').write_bytes(b'no video')
    with pytest.raises(ValueError, match=r"b\.avi' is not a video"):
        read(tmp_path / 'b.avi')


def test_names_that_no_file_system_or_log_takes(pictures, tmp_path):
    data = (pictures / 'a.png').read_bytes()
    names = ['ä' * 125 + 'x.png', 'ä' * 125 + 'y.png', os.fsdecode(b'\xff.png'), 'cut\udcfe\n.png']
    for name in names:
        (tmp_path / name).write_bytes(data if 'cut' not in name else data[:99])
    paths = [str(tmp_path / name) for name in names]
    written = [image.name for image in read_images(paths[:3])]
    assert written == ['ä' * 100, 'ä' * 100 + '_1', 'image']
    with pytest.raises(ValueError, match=r"/cut\\xfe\\n\.png' is not an image") as error:
        list(read_images(paths[3:]))
    assert str(error.value).encode()
    assert list_inputs(tmp_path) == sorted(paths)


def test_addresses_without_an_image(server):
    for address, reason in (
        (f'{server}/none.png', '404'),
        ('http://127.0.0.1:9/a.png', 'refused'),
        ('http:///a.png', 'no host'),
    ):
        with pytest.raises(FileNotFoundError, match=reason) as error:
            read(address)
        assert address in str(error.value)


def test_what_is_no_image():
    with pytest.raises(TypeError, match='an input is a int: pass'):
        read(7)
    for shape in ((4, 4, 4), (4, 4, 1), (4,), (2, 4, 4, 3)):
        with pytest.raises(ValueError, match='pass uint8'):
            read(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match='of float64: pass uint8'):
        read(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match='no pixels'):
        read(np.zeros((0, 4, 3), np.uint8))


def test_limits(video):
    array = np.zeros((20, 30, 3), np.uint8)
    for image in (array, Image.fromarray(array), video):
        with pytest.raises(ValueError, match='larger max_pixels'):
            read(image, max_pixels=599)
    assert len(read(array, max_pixels=600)) == 1


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


@pytest.mark.parametrize(
    'side, message',
    [
        (8000, 'has 64 million pixels, .* larger max_pixels'),
        # over Pillow's own limits
        (10_000, r'.*100000000 pixels\) exceeds limit of 89478485'),
        (60_000, r'.*3600000000 pixels\) exceeds limit'),
    ],
)
def test_size_is_refused_by_the_header(side, message):
    with pytest.raises(ValueError, match=f"^'big' {message}"):
        decode(header(side, side), 'big')


def test_limit_is_the_caller_s():
    data = encoded(Image.fromarray(RGB))
    assert decode(data, 'a', max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(ValueError, match='more than the'):
        decode(data, 'a', max_pixels=599)
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS
