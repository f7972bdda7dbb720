from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from kpu_mm.datasets.image_transforms import resize_image

from .conftest import encode


@pytest.mark.parametrize('name', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [(20, 31), (48, 64), (90, 70), (7, 200)])
def test_equals_pillow_to_two_grey_levels(name, size):
    image = np.array(Image.open(io.BytesIO(encode(0))))
    method = Image.Resampling[name.upper()]
    expected = Image.fromarray(image).resize(size[::-1], method)
    resized = resize_image(image, size, name)
    assert resized.dtype == np.uint8 and resized.flags['C_CONTIGUOUS']
    difference = resized.astype(int) - np.asarray(expected).astype(int)
    assert np.abs(difference).max() <= 2
