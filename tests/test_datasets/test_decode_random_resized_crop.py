from __future__ import annotations

import random

import numpy as np
import pytest

from kpu_mm.datasets import DecodeRandomResizedCrop
from kpu_mm.datasets.image_transforms import random_box

from .conftest import encode


def test_boxes_keep_area_and_ratio():
    random.seed(0)
    shares, ratios, lefts = [], [], []
    for _ in range(2000):
        box = random_box((400, 500), (0.2, 0.5), (0.5, 1.5))
        width, height = box.right - box.left, box.bottom - box.top
        assert 0 <= box.left < box.right <= 500
        assert 0 <= box.top < box.bottom <= 400
        shares.append(width * height / 200000)
        ratios.append(width / height)
        lefts.append(box.left / (500 - width + 1))
    assert 0.198 < min(shares) < 0.21 and 0.49 < max(shares) < 0.502
    assert 0.497 < min(ratios) < 0.53 and 1.45 < max(ratios) < 1.51
    assert abs(np.mean(shares) - 0.35) < 0.01
    assert abs(np.mean(lefts) - 0.5) < 0.02


def test_extreme_image_gets_the_central_crop():
    assert random_box((10, 1000), (0.9, 1.0), (0.5, 2.0)) == (490, 0, 510, 10)
    assert random_box((1000, 10), (0.9, 1.0), (0.5, 2.0)) == (0, 490, 10, 510)


def test_full_box_is_the_resized_image():
    data = encode(1, (64, 64))
    transform = DecodeRandomResizedCrop(64, scale=(1, 1), ratio=(1, 1))
    results = transform({'bytes': data, 'skipped': []})
    from kpu_mm.datasets import EncodedImage

    expected = EncodedImage(data).pixels((64, 64))
    np.testing.assert_array_equal(results['img'], expected)
    assert results['ori_shape'] == (64, 64) == results['img_shape']


def test_bad_arguments_are_refused():
    for options in [
        {'size': 0},
        {'size': 8, 'scale': (0.5, 0.2)},
        {'size': 8, 'scale': (0.5, 2.0)},
        {'size': 8, 'ratio': (2.0, 1.0)},
        {'size': 8, 'interpolation': 'nearest'},
    ]:
        with pytest.raises(ValueError, match=list(options)[-1]):
            DecodeRandomResizedCrop(**options)
