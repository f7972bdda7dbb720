from __future__ import annotations

import numpy as np
import pytest
from transformers.models.grounding_dino import image_processing_grounding_dino

from kpu_mm.datasets import CorruptImageError, DecodeRandomResizedCrop, DecodeResize
from kpu_mm.datasets.image_transforms import shortest_edge_size

from .conftest import encode

reference = image_processing_grounding_dino.get_size_with_aspect_ratio


@pytest.mark.parametrize('shortest, longest', [(800, 1333), (224, 300)])
def test_sizes_are_those_of_grounding_dino(shortest, longest):
    rng = np.random.default_rng(0)
    sizes = rng.integers(30, 3000, (3000, 2)).tolist()
    sizes += [[800, 800], [800, 900], [1333, 800], [500, 500], [480, 640]]
    for size in sizes:
        ours = shortest_edge_size(tuple(size), shortest, longest)
        # theirs leaves the longer side as it is where the shorter one is kept
        theirs = reference(size, shortest, longest)
        assert ours == tuple(min(side, longest) for side in theirs), size


@pytest.mark.parametrize('size', [(1, 60000), (60000, 1), (3, 1335)])
def test_the_longest_side_always_holds(size):
    found = shortest_edge_size(size, 800, 1333)
    assert max(found) == 1333
    assert min(found) == min(size)


@pytest.mark.parametrize('size', [(1, 60), (60, 1), (100, 100)])
def test_extreme_images_are_skipped(size):
    transform = DecodeResize(max_pixels=9999, max_ratio=20)
    with pytest.raises(CorruptImageError, match='more than'):
        transform({'bytes': encode(0, size)})


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


def test_images_of_which_too_little_is_left_are_skipped():
    transform = DecodeResize(shortest=64, longest=96)
    with pytest.raises(CorruptImageError, match='48 x 3 pixels become 96 x 6, too few on one side'):
        transform({'bytes': encode(0, (3, 48))})
    results = transform({'bytes': encode(0, (16, 48))})
    assert results['img'].shape == (32, 96, 3)
    # a user may want less
    assert DecodeResize(16, 96)({'bytes': encode(0, (10, 50))})['img'].shape == (16, 80, 3)


@pytest.mark.parametrize('size', [(1, 1), (1, 20), (20, 1)])
def test_the_smallest_images_are_enlarged(size):
    for transform in (DecodeRandomResizedCrop(40), DecodeResize(40, 800)):
        for kind in ('JPEG', 'PNG'):
            results = transform({'bytes': encode(0, size, format=kind)})
            assert min(results['img'].shape[:2]) == 40
