"""OpenClipResize against open_clip's own preprocessing."""

import itertools

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from kpu_mm.registry import TRANSFORMS

MODES = itertools.product(('shortest', 'longest', 'squash'), ('bicubic', 'bilinear', 'random'))


@pytest.mark.parametrize('resize_mode, interpolation', MODES)
@pytest.mark.parametrize('size', [(64, 64), (48, 80)])
def test_equals_open_clip(resize_mode, interpolation, size):
    stated = dict(resize_mode=resize_mode, interpolation=interpolation, fill_color=77)
    theirs = image_transform_v2(
        PreprocessCfg(size, mean=(0.0,) * 3, std=(1.0,) * 3, **stated), is_train=False
    )
    ours = TRANSFORMS.build(dict(type='OpenClipResize', size=size, **stated))
    rng = np.random.default_rng(0)
    for shape in ((90, 70), (31, 120), (200, 64), (64, 64)):
        image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        expected = theirs(Image.fromarray(image)) * 255
        # channels are in the order of OpenCV
        result = ours(dict(img=image[..., ::-1]))
        assert result['img_shape'] == size
        found = torch.from_numpy(result['img'][..., ::-1].copy()).permute(2, 0, 1)
        assert torch.equal(found, expected.round().byte())


def test_unknown_modes():
    with pytest.raises(ValueError, match="has resize_mode='crop' and interpolation='bicubic'"):
        TRANSFORMS.build(dict(type='OpenClipResize', size=(8, 8), resize_mode='crop'))
