import numpy as np
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks

from kpu_mm.registry import TRANSFORMS


def crop(height, width):
    transform = TRANSFORMS.build(
        dict(
            type='kpu_mm.DiagonalCrop',
            crop_size=(20, 20),
            recompute_bbox=True,
            allow_negative_crop=True,
        )
    )
    rows, columns = np.mgrid[:height, :width]
    square = np.array([2.5, 2.5, width, 2.5, width, height, 2.5, height])
    results = transform(
        dict(
            img=np.stack((rows, columns), -1).astype(np.uint8),
            gt_bboxes=HorizontalBoxes([[0, 0, width, height]]),
            gt_bboxes_labels=np.array([0]),
            gt_masks=PolygonMasks([[square]], height, width),
        )
    )
    top, left = results['img'][0, 0].tolist()
    return results, top, left


def test_one_factor_sets_both_offsets():
    tops = set()
    for seed in range(30):
        np.random.seed(seed)
        results, top, left = crop(60, 100)
        assert results['img'].shape[:2] == (20, 20)
        assert abs(left - 2 * top) <= 1
        assert 0 <= top <= 40
        tops.add(top)
        # The box follows its polygon, not its former self.
        corner = (max(2.5 - left, 0), max(2.5 - top, 0))
        box = results['gt_bboxes'].tensor[0].tolist()
        assert box == [*corner, 20, 20]
    assert len(tops) > 10


def test_an_image_smaller_than_the_window_stays():
    results, top, left = crop(12, 16)
    assert (top, left) == (0, 0)
    assert results['img'].shape[:2] == (12, 16)
