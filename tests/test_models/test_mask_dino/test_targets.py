import pytest
import torch
from mmengine.structures import PixelData

from kpu_mm.models.mask_dino.targets import make_target
from tests.mask_dino_samples import CANVAS, IMAGE, sample

CPU = torch.device('cpu')


def test_boxes_and_masks_are_of_the_canvas():
    target = make_target(sample([(0, 16, 48, 32)], [2]), 4, 0, CPU)
    assert target.labels.tolist() == [2]
    # (cx, cy, w, h) over 96 x 64, though the image has 90 x 60
    assert target.boxes.tolist() == [[0.25, 0.375, 0.5, 0.25]]
    assert target.masks.shape == (1, *CANVAS)
    assert target.masks.dtype == torch.bool
    assert target.masks[0, 16:32, :48].all()
    assert target.masks.sum() == 16 * 48


def with_map(data):
    """Class 0 (a thing) left, 5 right, ignored rows below."""
    labels = torch.zeros(1, *IMAGE, dtype=torch.uint8)
    labels[..., 48:] = 5
    labels[:, 32:] = 255
    data.gt_sem_seg = PixelData(sem_seg=labels)
    return data


def test_stuff_comes_after_things():
    data = with_map(sample([(0, 0, 48, 32)], [0]))
    target = make_target(data, 4, 2, CPU)
    assert target.labels.tolist() == [0, 5]
    assert target.masks[1].nonzero().amin(0).tolist() == [0, 48]
    assert target.masks[1].nonzero().amax(0).tolist() == [31, 89]
    box = torch.tensor([69 / 96, 0.25, 42 / 96, 0.5])
    torch.testing.assert_close(target.boxes[1], box)


def test_semantic_segmentation_needs_no_instances():
    data = with_map(sample())
    del data.gt_instances
    assert make_target(data, 0, 6, CPU).labels.tolist() == [0, 5]


@pytest.mark.parametrize(
    ('change', 'classes', 'message'),
    [
        (lambda d: d.gt_instances.pop('masks'), (4, 0), 'without masks'),
        (lambda d: d.gt_instances.pop('bboxes'), (4, 0), 'without bboxes'),
        (lambda d: delattr(d, 'gt_instances'), (4, 0), 'bboxes and labels and masks'),
        (lambda d: None, (4, 2), 'without gt_sem_seg'),
        (lambda d: None, (3, 0), r'label 3, the head has 3 classes \(0 to 2'),
        (with_map, (0, 5), r'label 5, the head has 5 classes'),
        (
            lambda d: d.set_metainfo(dict(img_shape=(30, 45))),
            (4, 0),
            r'masks of size \(60, 90\), but the image has \(30, 45\)',
        ),
    ],
)
def test_wrong_ground_truth_is_refused(change, classes, message):
    data = sample([(0, 0, 10, 10)], [3])
    change(data)
    with pytest.raises(ValueError, match=f'^scene.png .*{message}'):
        make_target(data, *classes, CPU)
