from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from kpu_mm.datasets import UnlabeledImages
from projects.micro_lab.digit_scenes import DigitSceneSource, scene


def test_reads_the_scenes_of_its_series():
    source = DigitSceneSource('test', seed=2, count=5, size=96)
    assert len(source) == 5
    copy = pickle.loads(pickle.dumps(source))
    with Image.open(io.BytesIO(copy.read(4))) as file:
        assert np.array_equal(file, scene('test', 2, 4, 96).image)
    assert source.name(4) == 'digit scene test/2/4'


def test_refuses_what_is_not_there():
    with pytest.raises(IndexError, match=r'outside 0\.\.4'):
        DigitSceneSource(count=5).read(5)
    with pytest.raises(ValueError, match="no split 'val'"):
        DigitSceneSource('val')


def test_feeds_the_unlabelled_dataset():
    dataset = UnlabeledImages(
        dict(type='kpu_mm.DigitSceneSource', count=3),
        [
            dict(type='kpu_mm.DecodeResize', shortest=64, longest=64),
            dict(type='kpu_mm.PackImage'),
        ],
    )
    pictures = {dataset[i]['image'].numpy().tobytes() for i in range(3)}
    expected = {
        scene('train', 0, i).image.transpose(2, 0, 1).tobytes()
        for i in range(3)
    }
    assert pictures == expected
