"""An exported student of two teachers, and pictures to try it on."""

import cv2
import numpy as np
import pytest
from PIL import Image

from kpu_mm.export import write_student
from kpu_mm.models.student import open_student


@pytest.fixture(scope='session')
def student_dir(zero_shot_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp('exported') / 'student'
    return write_student(open_student(zero_shot_run / 'iter_1.pth'), folder)


@pytest.fixture(scope='session')
def pictures(tmp_path_factory):
    """Three PNG of two sizes, smooth so that resizing matters little."""
    folder = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for name, size in (('a', (96, 128)), ('b', (96, 128)), ('c', (150, 80))):
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        image = Image.fromarray(coarse).resize(size[::-1], Image.BICUBIC)
        image.save(folder / f'{name}.png')
    return folder


@pytest.fixture(scope='session')
def video(tmp_path_factory):
    """Seven frames of 64 x 48, frame k of grey value 30 k."""
    path = tmp_path_factory.mktemp('video') / 'clip.avi'
    codec = cv2.VideoWriter_fourcc(*'MJPG')
    writer = cv2.VideoWriter(str(path), codec, 10, (64, 48))
    for k in range(7):
        writer.write(np.full((48, 64, 3), 30 * k, np.uint8))
    writer.release()
    return path
