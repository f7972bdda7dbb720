from __future__ import annotations

import torch

from kpu_mm.datasets import stack_images


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
