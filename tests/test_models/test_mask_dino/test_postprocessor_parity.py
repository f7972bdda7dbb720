import pytest
import torch
from mmdet.evaluation.functional import INSTANCE_OFFSET

from kpu_mm.models.mask_dino import FocalClasses, SoftmaxClasses
from kpu_mm.models.mask_dino.postprocessor import Postprocessor
from kpu_mm.models.mask_dino.predictor import Predictions
from tests.references.mask_dino.post_processing import instances, panoptic, resize_masks, semantic

CLASSES, DIMS, QUERIES = 6, 8, 20
# a resized image on a larger canvas, and its size before
CANVAS, IMAGE, ORIGINAL = (64, 96), (60, 80), (45, 61)
META = dict(batch_input_shape=CANVAS, img_shape=IMAGE, ori_shape=ORIGINAL)


@pytest.fixture
def outputs():
    """Predictions of smooth masks, and the masks."""
    features = torch.nn.functional.interpolate(
        torch.randn(1, DIMS, 4, 6), (16, 24), mode='bilinear'
    )[0]
    predictions = Predictions(
        torch.randn(QUERIES, CLASSES), torch.rand(QUERIES, 4), torch.randn(QUERIES, DIMS) * 2
    )
    masks = torch.einsum('nc,chw->nhw', predictions.mask_queries, features)
    return predictions, features, masks


def by_score(results):
    order = sorted(
        range(len(results[0])), key=lambda i: (results[1][i].item(), results[2][i].tolist())
    )
    return [part[order] for part in results]


@pytest.mark.parametrize('rescale', [True, False])
@pytest.mark.parametrize('most', [30, 100, 1000])
def test_instances(outputs, most, rescale):
    predictions, features, masks = outputs
    found = Postprocessor(FocalClasses(CLASSES), CLASSES, max_per_img=most)(
        predictions, features, META, rescale
    ).instances
    wanted = instances(
        predictions.logits,
        predictions.boxes,
        masks,
        CANVAS,
        IMAGE,
        ORIGINAL if rescale else IMAGE,
        top=most,
    )
    ours = (found.scores, found.labels, found.bboxes, found.masks)
    assert len(found) == min(most, QUERIES * CLASSES)
    *ours, ours_masks = by_score(ours)
    *wanted, wanted_masks = by_score(wanted)
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    # rounding may move a logit across zero
    assert (ours_masks != wanted_masks).float().mean() < 1e-5


def test_boxes_may_leave_the_image(outputs):
    predictions, features, _ = outputs
    predictions = predictions._replace(boxes=torch.tensor([0.9, 0.95, 0.4, 0.3]).expand(QUERIES, 4))
    found = Postprocessor(FocalClasses(CLASSES), CLASSES)(predictions, features, META).instances
    height, width = ORIGINAL[0] * 64 / 60, ORIGINAL[1] * 96 / 80
    torch.testing.assert_close(
        found.bboxes[0], torch.tensor([0.7 * width, 0.8 * height, 1.1 * width, 1.1 * height])
    )
    assert found.bboxes[0, 2] > ORIGINAL[1]


@pytest.mark.parametrize('softmax', [False, True])
def test_semantic(outputs, softmax):
    predictions, features, masks = outputs
    kind = SoftmaxClasses if softmax else FocalClasses
    # a softmax model's last output is the background
    count = CLASSES - softmax
    found = Postprocessor(kind(count), 0, instance_on=False, semantic_on=True)(
        predictions, features, META
    )
    full = resize_masks(masks, CANVAS, IMAGE, ORIGINAL)
    wanted = semantic(predictions.logits, full, softmax)
    assert found.instances is None and found.panoptic is None
    assert wanted.shape == (count, *ORIGINAL)
    labels = found.semantic.sem_seg[0]
    assert labels.shape == ORIGINAL
    # equal up to rounding where two classes tie
    best, chosen = wanted.amax(0), wanted.gather(0, labels[None])[0]
    torch.testing.assert_close(chosen, best, rtol=1e-5, atol=1e-5)


def confident(masks, probability):
    """Logits of a few strong classes; half of the queries stay weak."""
    logits = torch.full((QUERIES, CLASSES), -6.0)
    labels = torch.randint(CLASSES, (QUERIES,))
    strong = torch.arange(QUERIES) % 2 == 0
    logits[strong, labels[strong]] = probability
    return logits + 0.1 * torch.randn_like(logits)


@pytest.mark.parametrize('things', [0, 3, CLASSES])
def test_panoptic(outputs, things):
    predictions, features, masks = outputs
    predictions = predictions._replace(logits=confident(masks, 2.0))
    found = (
        Postprocessor(
            FocalClasses(CLASSES), things, instance_on=False, panoptic_on=True, iou_thr=0.3
        )(predictions, features, META)
        .panoptic.sem_seg[0]
        .long()
    )
    full = resize_masks(masks, CANVAS, IMAGE, ORIGINAL)
    segments, listed = panoptic(predictions.logits, full, range(things), share=0.3)
    assert len(listed) >= 1
    assert torch.equal(found == CLASSES, segments == 0)
    seen = set()
    for number, label, is_thing in listed:
        values = found[segments == number].unique()
        assert len(values) == 1
        value = values.item()
        assert value % INSTANCE_OFFSET == label
        assert (value >= INSTANCE_OFFSET) == is_thing
        assert value not in seen
        seen.add(value)


def test_nothing_is_confident(outputs):
    predictions, features, masks = outputs
    predictions = predictions._replace(logits=confident(masks, -3.0))
    found = Postprocessor(FocalClasses(CLASSES), 3, instance_on=False, panoptic_on=True)(
        predictions, features, META
    )
    assert (found.panoptic.sem_seg == CLASSES).all()


def test_only_things_are_instances(outputs):
    predictions, features, _ = outputs
    every = Postprocessor(FocalClasses(CLASSES), CLASSES)(predictions, features, META).instances
    things = Postprocessor(FocalClasses(CLASSES), 2)(predictions, features, META).instances
    kept = every[every.labels < 2]
    torch.testing.assert_close(things.scores, kept.scores)
    assert torch.equal(things.labels, kept.labels)
