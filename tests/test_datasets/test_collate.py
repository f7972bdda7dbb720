from __future__ import annotations

import torch

from kpu_mm.datasets import stack_images
from kpu_mm.datasets.feature_cache import StoredFeatures
from kpu_mm.structures import Features


def sample(height, width, skipped=()):
    image = torch.randint(1, 256, (3, height, width), dtype=torch.uint8)
    return {'image': image, 'skipped': list(skipped)}


def test_equal_sizes_are_stacked_without_a_mask():
    samples = [sample(4, 5), sample(4, 5, [('a', 'bad')])]
    batch = stack_images(samples)
    assert batch['mask'] is None
    assert batch['skipped'] == [('a', 'bad')]
    expected = torch.stack([s['image'] for s in samples])
    assert batch['images'].dtype == torch.uint8
    assert torch.equal(batch['images'], expected)


def test_padding_is_zero_below_and_right():
    samples = [sample(2, 6), sample(5, 3)]
    batch = stack_images(samples)
    assert batch['images'].shape == (2, 3, 5, 6)
    assert batch['mask'].dtype == torch.bool
    assert batch['mask'].sum((1, 2)).tolist() == [12, 15]
    assert torch.equal(batch['images'][0, :, :2], samples[0]['image'])
    assert torch.equal(batch['images'][1, :, :, :3], samples[1]['image'])
    # Random pixels are never zero here, padding always is.
    real = (batch['images'] > 0).all(1)
    assert torch.equal(real, batch['mask'])


def test_stored_features_come_along():
    def stored(h, w):
        return StoredFeatures('id', Features(None, (torch.ones(1, 2, h, w),)))

    samples = [sample(4, 6), sample(8, 2)]
    assert 'features' not in stack_images(samples)
    samples[0]['features'] = dict(a=stored(2, 3), b=stored(4, 6))
    samples[1]['features'] = dict(a=stored(4, 1), b=stored(8, 2))
    batch = stack_images(samples)
    assert list(batch['features']) == ['a', 'b']
    (m,), (mask,) = batch['features']['a'].features[1:]
    assert m.shape == (2, 2, 4, 3) and mask.shape == (2, 1, 4, 3)
    equal = [sample(4, 4) | {'features': dict(a=stored(2, 2))}] * 2
    assert stack_images(equal)['features']['a'].features.masks is None
