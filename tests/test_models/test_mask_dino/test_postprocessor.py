import pytest
import torch
from mmdet.models.seg_heads import MaskFormerFusionHead

from kpu_mm.models.mask_dino.postprocessor import Postprocessor
from kpu_mm.models.mask_dino.predictor import FocalClasses, Predictions, SoftmaxClasses

META = dict(batch_input_shape=(32, 64), img_shape=(30, 60), ori_shape=(15, 30))


def test_panoptic_equals_mask_former_fusion():
    """With the threshold apart, its rule on the same scores is ours."""
    torch.manual_seed(0)
    segments = 0
    for _ in range(20):
        logits = torch.randn(6, 5) * 2
        masks = (torch.randn(6, 9, 11) * 3).sigmoid()
        classes = FocalClasses(5)
        ours = Postprocessor(
            classes, 3, panoptic_on=True, object_mask_thr=0.0, iou_thr=0.2
        ).panoptic(logits, masks)
        fusion = MaskFormerFusionHead(
            3, 2, test_cfg=dict(object_mask_thr=0.0, iou_thr=0.2, filter_low_score=True)
        )
        scores = (logits.sigmoid() / 0.06).softmax(-1)
        background = torch.full((6, 1), -torch.inf)
        theirs = fusion.panoptic_postprocess(
            torch.cat((scores.log(), background), 1), masks.logit()
        )
        assert ours.sem_seg.dtype == theirs.sem_seg.dtype
        assert (ours.sem_seg == theirs.sem_seg).all()
        segments += len(ours.sem_seg.unique())
    assert segments > 60


def test_panoptic_by_hand():
    # two things of class 0, and stuff of class 1 in two parts
    logits = torch.full((5, 2), -9.0)
    logits[[0, 1], 0] = 2.0
    logits[[2, 3], 1] = 2.0
    masks = torch.zeros(5, 2, 8)
    for i in range(4):
        masks[i, :, 2 * i : 2 * i + 2] = 1
    masks[3, 1] = 0
    classes = FocalClasses(2)
    result = Postprocessor(classes, 1, panoptic_on=True).panoptic(logits, masks)
    rows = [[1000, 1000, 2000, 2000, 1, 1, 1, 1]] * 2
    rows[1] = [*rows[1][:6], 2, 2]
    assert result.sem_seg.tolist() == [rows]


def test_nothing_above_the_threshold_is_void():
    result = Postprocessor(FocalClasses(2), 1, panoptic_on=True).panoptic(
        torch.full((5, 2), -9.0), torch.ones(5, 4, 6)
    )
    assert result.sem_seg.tolist() == [[[2] * 6] * 4]


@pytest.mark.parametrize('classes', [FocalClasses(3), SoftmaxClasses(3)])
def test_semantic_takes_the_class_of_the_mask(classes):
    logits = torch.full((2, classes.num_outputs), -8.0)
    logits[0, 2] = logits[1, 0] = 8.0
    masks = torch.zeros(2, 4, 6)
    masks[0, :2], masks[1, 2:] = 1.0, 1.0
    result = Postprocessor(classes, 0, semantic_on=True).semantic(logits, masks)
    assert result.sem_seg.tolist() == [[[2] * 6] * 2 + [[0] * 6] * 2]


def predictions(num_classes=3):
    """Two queries, the second also of class 1; masks left and right."""
    logits = torch.full((2, num_classes), -9.0)
    logits[0, 0], logits[1, 2], logits[1, 1] = 3.0, 2.0, 1.0
    boxes = torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.6, 1.0]])
    features = torch.full((2, 8, 16), -5.0)
    features[0, :, :8], features[1, :, 8:] = 5.0, 5.0
    return Predictions(logits, boxes, torch.eye(2)), features


def test_instances_by_hand():
    post = Postprocessor(FocalClasses(3), 3, max_per_img=3)
    result = post(*predictions(), META).instances
    assert result.labels.tolist() == [0, 2, 1]
    # 32 rows of canvas hold 30 of the image, which are 15 of the original:
    # x and y are of a canvas of 32 x 16; the second box leaves the image.
    expected = torch.tensor([[0.0, 0, 16, 16], [14.4, 0, 33.6, 16]])
    torch.testing.assert_close(result.bboxes, expected[[0, 1, 1]])
    assert result.masks.shape == (3, 15, 30)
    assert result.masks[0, :, :16].all() and not result.masks[0, :, 16:].any()
    assert (result.masks[1] == result.masks[2]).all()
    # Masks are less than sure near their edge only.
    scores = torch.tensor([3.0, 2.0, 1.0]).sigmoid()
    assert (result.scores < scores).all()
    torch.testing.assert_close(result.scores, scores, atol=0.1, rtol=0)


def test_instances_are_things():
    post = Postprocessor(FocalClasses(3), 1, max_per_img=3)
    assert post(*predictions(), META).instances.labels.tolist() == [0]


def test_results_of_the_resized_image():
    post = Postprocessor(FocalClasses(3), 3, semantic_on=True, panoptic_on=True)
    results = post(*predictions(), META, rescale=False)
    assert results.instances.masks.shape[1:] == (30, 60)
    assert results.instances.bboxes[0].tolist() == [0, 0, 32, 32]
    assert results.semantic.sem_seg.shape == (1, 30, 60)
    assert results.panoptic.sem_seg.shape == (1, 30, 60)
