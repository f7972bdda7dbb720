from __future__ import annotations

import numpy as np
import pytest
from transformers.models.grounding_dino import image_processing_grounding_dino

from kpu_mm.datasets import DecodeResize
from kpu_mm.datasets.transforms import shortest_edge_size

from ..conftest import encode

reference = image_processing_grounding_dino.get_size_with_aspect_ratio


@pytest.mark.parametrize('shortest, longest', [(800, 1333), (224, 300)])
def test_sizes_are_those_of_grounding_dino(shortest, longest):
    rng = np.random.default_rng(0)
    sizes = rng.integers(30, 3000, (3000, 2)).tolist()
    sizes += [[800, 800], [800, 900], [1333, 800], [500, 500], [480, 640]]
    for size in sizes:
        ours = shortest_edge_size(tuple(size), shortest, longest)
        assert ours == reference(size, shortest, longest), size


def test_decodes_to_that_size():
    transform = DecodeResize(shortest=30, longest=50)
    results = transform({'bytes': encode(0, (40, 60)), 'skipped': []})
    assert results['img'].shape == (30, 45, 3)
    assert results['img'].dtype == np.uint8
    assert results['img_shape'] == (30, 45)
    assert results['ori_shape'] == (40, 60)
    assert 'bytes' not in results


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match='shortest <= longest'):
        DecodeResize(10, 5)
    with pytest.raises(ValueError, match='choose one of'):
        DecodeResize(interpolation='magic')
