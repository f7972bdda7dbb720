import pytest
import torch
from mmdet.models.layers import inverse_sigmoid

from kpu_mm.models.mask_dino.targets import mask_to_box
from tests.references.mask_dino.boxes import logits_of_masks

SMALL = -11.5129  # logit of 0, clamped at 1e-5


def masks():
    height, width = 12, 20
    empty = torch.zeros(height, width, dtype=torch.bool)
    pixel, corner, blobs = empty.clone(), empty.clone(), empty.clone()
    pixel[4, 7] = True
    corner[11, 19] = True
    blobs[1:3, 2:5] = True
    blobs[8:10, 12:15] = True
    return dict(empty=empty, full=~empty, pixel=pixel, corner=corner, blobs=blobs)


# (x0, y0, x1, y1) in cells
BITMASK = dict(
    full=(0, 0, 20, 12), pixel=(7, 4, 8, 5), corner=(19, 11, 20, 12), blobs=(2, 1, 15, 10)
)
MASK2BOX = dict(
    full=(0, 0, 19, 11), pixel=(7, 4, 7, 4), corner=(19, 11, 19, 11), blobs=(2, 1, 14, 9)
)


@pytest.mark.parametrize(('box_init', 'expected'), [('bitmask', BITMASK), ('mask2box', MASK2BOX)])
def test_by_hand(box_init, expected):
    for name, (x0, y0, x1, y1) in expected.items():
        wanted = torch.tensor(
            [(x0 + x1) / 2 / 20, (y0 + y1) / 2 / 12, (x1 - x0) / 20, (y1 - y0) / 12]
        )
        torch.testing.assert_close(mask_to_box(masks()[name], box_init), wanted)


@pytest.mark.parametrize(
    ('box_init', 'expected'),
    [('bitmask', (SMALL, SMALL, SMALL, SMALL)), ('mask2box', (-SMALL, -SMALL, SMALL, SMALL))],
)
def test_empty_masks(box_init, expected):
    box = mask_to_box(masks()['empty'], box_init)
    torch.testing.assert_close(inverse_sigmoid(box), torch.tensor(expected), rtol=0, atol=1e-3)


@pytest.mark.parametrize('box_init', ['bitmask', 'mask2box'])
def test_against_the_reference(box_init):
    logits = torch.randn(2, 9, 12, 20) - torch.rand(2, 9, 1, 1) * 5
    ours = inverse_sigmoid(mask_to_box(logits > 0, box_init))
    torch.testing.assert_close(ours, logits_of_masks(logits, box_init), rtol=0, atol=1e-5)
