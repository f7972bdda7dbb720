from __future__ import annotations

import numpy as np
import pytest
import torch

from kpu_mm.datasets import PackImage


def test_packs_channels_first():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    # A view with strides of its own, as a flip leaves it.
    packed = PackImage()({'img': image[:, ::-1], 'skipped': [('a', 'b')]})
    assert packed['image'].is_contiguous()
    expected = torch.tensor(image.tolist(), dtype=torch.uint8)
    assert torch.equal(packed['image'], expected.flip(1).permute(2, 0, 1))
    assert packed['skipped'] == [('a', 'b')]
    assert set(packed) == {'image', 'skipped'}


def test_normalised_images_are_refused():
    with pytest.raises(ValueError, match='remove normalising'):
        PackImage()({'img': np.zeros((5, 7, 3), np.float32), 'skipped': []})
