from __future__ import annotations

import numpy as np
import pytest
import torch

from kpu_mm.datasets import CorruptImageError, TorchvisionTransform, seeded
from kpu_mm.registry import TRANSFORMS


def image():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_solarize_by_hand():
    transform = TRANSFORMS.build(
        dict(type='kpu_mm.TorchvisionTransform', name='RandomSolarize', threshold=128, p=1.0)
    )
    before = image()
    after = transform(dict(img=before.copy()))['img']
    expected = np.where(before >= 128, 255 - before, before)
    np.testing.assert_array_equal(after, expected)
    assert after.dtype == np.uint8 and after.flags['C_CONTIGUOUS']


def test_gray_is_gray_and_mirrored_views_are_taken():
    transform = TorchvisionTransform('Grayscale', num_output_channels=3)
    after = transform(dict(img=image()[:, ::-1]))['img']
    assert after.shape == (6, 9, 3)
    assert (after == after[..., :1]).all()


def test_share_and_seed():
    transform = TorchvisionTransform('RandomInvert', prob=0.3, p=1.0)
    torch.manual_seed(0)
    changed = [
        not np.array_equal(transform(dict(img=image()))['img'], image()) for _ in range(2000)
    ]
    assert abs(np.mean(changed) - 0.3) < 0.05
    jitter = TorchvisionTransform('ColorJitter', brightness=0.4, hue=0.1)
    results = []
    for seed in (1, 1, 2):
        with seeded(seed):
            results.append(jitter(dict(img=image()))['img'])
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_refusals():
    with pytest.raises(ValueError, match="no transform 'Jitter'"):
        TorchvisionTransform('Jitter')
    with pytest.raises(ValueError, match='prob=2'):
        TorchvisionTransform('RandomInvert', prob=2)
    with pytest.raises(TypeError):
        TorchvisionTransform('RandomInvert', sigma=1)


def test_an_image_that_is_too_small_is_skipped():
    transform = TorchvisionTransform('RandomCrop', size=8)
    with pytest.raises(CorruptImageError, match=r'RandomCrop does not take it: .*crop size'):
        transform(dict(img=image()))
    with pytest.raises(CorruptImageError, match='GaussianBlur does not take it'):
        TorchvisionTransform('GaussianBlur', kernel_size=23)(dict(img=image()))
