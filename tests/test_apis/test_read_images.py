import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from PIL import Image

from kpu_mm.apis.inputs import list_inputs
from kpu_mm.apis.read_images import ImageReader


def read(*items, **kwargs):
    return list(ImageReader(**kwargs).read(list_inputs(list(items))))


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
    assert [i.name for i in images] == [
        'a',
        'a_1',
        'image_000002',
        'image_000003',
    ]
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
    assert [i.name for i in found] == [
        'clip_000000',
        'clip_000003',
        'clip_000006',
        'a',
    ]
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
    with pytest.raises(ValueError, match='video_stride=0'):
        read(array, video_stride=0)
