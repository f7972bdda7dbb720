"""What libjpeg says of damaged files, which it prints without their names."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from kpu_mm.apis.read_images import decode
from kpu_mm.datasets import (
    CorruptImageError,
    DecodeResize,
    EncodedImage,
    LoadImageFromFile,
    encoded_image,
)
from kpu_mm.datasets.decoders import decode_jpeg

from .conftest import encode

WHOLE = encode(0, (64, 96))
END = WHOLE[-2:]
# what is left is followed by the mark of the end
CUT = WHOLE[: len(WHOLE) // 2] + END
# bytes too many, as some cameras write them
LONG = WHOLE[:-2] + b'abcdef' + END


def test_damage_is_told_and_not_printed(capfd):
    pixels, damage = decode_jpeg(CUT, 1)
    assert damage == 'Corrupt JPEG data: premature end of data segment'
    whole, nothing = decode_jpeg(WHOLE, 1)
    assert nothing == ''
    assert (pixels[:8] == whole[:8]).all() and (pixels != whole).any()
    same, nothing = decode_jpeg(LONG, 1)
    assert nothing == '' and (same == whole).all()
    assert capfd.readouterr() == ('', '')


def test_streams_skip_damaged_images(capfd):
    with pytest.raises(CorruptImageError, match='premature end of data segment'):
        DecodeResize(32, 96)({'bytes': CUT})
    expected = DecodeResize(32, 96)({'bytes': WHOLE})['img']
    assert (DecodeResize(32, 96)({'bytes': LONG})['img'] == expected).all()
    assert capfd.readouterr().err == ''


def test_labelled_images_and_inferencers_name_them(tmp_path, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(encoded_image, 'print_log', lambda text, *_, **__: lines.append(text))
    path = tmp_path / 'a.jpg'
    path.write_bytes(CUT)
    loaded = LoadImageFromFile()(dict(img_path=str(path)))['img']
    assert (decode(CUT, 'b.jpg') == loaded).all()
    said = '\n'.join(lines)
    for name in (f"'{path}'", "'b.jpg'"):
        assert said.count(f'{name} is damaged (Corrupt JPEG data: premature end') == 1
    assert said.count('Corrupt') == 2


def test_what_others_print_meanwhile_is_kept(capfd, monkeypatch):
    """Another thread writes to stderr while an image is decoded."""
    import cv2

    decode_as_ever = cv2.imdecode

    def imdecode(*args):
        os.write(2, b'a line of another thread\n')
        return decode_as_ever(*args)

    monkeypatch.setattr(cv2, 'imdecode', imdecode)
    threads = [threading.Thread(target=decode_jpeg, args=(CUT, 1)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert capfd.readouterr().err == 'a line of another thread\n' * 4


def test_a_closed_stderr_is_none():
    saved = os.dup(2)
    os.close(2)
    try:
        pixels = EncodedImage(WHOLE).pixels((64, 96))
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    np.testing.assert_array_equal(pixels, EncodedImage(WHOLE).pixels((64, 96)))
