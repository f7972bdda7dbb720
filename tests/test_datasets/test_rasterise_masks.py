import numpy as np
from mmdet.structures.mask import BitmapMasks, PolygonMasks

from kpu_mm.registry import TRANSFORMS


def test_polygons_become_bitmaps():
    rectangle = np.array([2.0, 1, 6, 1, 6, 4, 2, 4])
    transform = TRANSFORMS.build(dict(type='kpu_mm.RasteriseMasks'))
    results = transform(dict(gt_masks=PolygonMasks([[rectangle]], 8, 10)))
    masks = results['gt_masks']
    assert isinstance(masks, BitmapMasks) and masks.masks.dtype == np.uint8
    expected = np.zeros((8, 10))
    expected[1:4, 2:6] = 1
    assert (masks.masks[0] == expected).all()


def test_no_object_is_no_mask():
    transform = TRANSFORMS.build(dict(type='kpu_mm.RasteriseMasks'))
    results = transform(dict(gt_masks=PolygonMasks([], 8, 10)))
    assert results['gt_masks'].masks.shape == (0, 8, 10)
