import pytest
import torch
from mmengine.structures import BaseDataElement

from kpu_mm.models import TeacherEncoder, ZeroShotDetector
from kpu_mm.registry import MODELS

NAMES = ('remote control', 'cat', 'a dog')


class Sample(BaseDataElement):
    """As MMDetection's, without needing it."""


def samples(*shapes, **meta):
    return [
        Sample(metainfo=dict(img_shape=s, ori_shape=(2 * s[0], 2 * s[1]), **meta)) for s in shapes
    ]


@pytest.fixture(scope='module')
def images():
    return torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)


@pytest.fixture(scope='module')
def teacher(grounding_dino_dir):
    return dict(source=str(grounding_dino_dir))


@pytest.fixture(scope='module')
def detector(teacher):
    return ZeroShotDetector(teacher).eval()


def test_an_encoder_of_the_teacher_changes_nothing(detector, teacher, images):
    """Bit for bit, with padding, through the place where students stand."""
    swapped = ZeroShotDetector(
        teacher,
        encoder=dict(
            type='kpu_mm.TeacherEncoder',
            teacher=dict(type='kpu_mm.GroundingDINOTeacher', **teacher),
        ),
    )
    assert isinstance(swapped.encoder, TeacherEncoder)
    shapes = ((96, 128), (80, 100))
    one, other = (
        model(images, samples(*shapes, text=NAMES), mode='predict') for model in (detector, swapped)
    )
    for a, b in zip(one, other, strict=True):
        a, b = a.pred_instances, b.pred_instances
        assert torch.equal(a.scores, b.scores)
        assert torch.equal(a.bboxes, b.bboxes)
        assert torch.equal(a.labels, b.labels)


def test_boxes_are_pixels_of_the_original(detector, images):
    (sample,) = detector.predict(images[:1], samples((96, 128), text=NAMES))
    found = sample.pred_instances
    maps = detector.encode(images[:1])
    (expected,) = detector.decoder.detect(maps, NAMES)
    scale = torch.tensor([256.0, 192.0, 256.0, 192.0])
    assert torch.equal(found.bboxes, expected.boxes.clamp(0, 1) * scale)
    assert found.label_names == [NAMES[k] for k in found.labels]
    assert len(found) == 20 * 3


def test_padding_may_hold_anything(detector, images):
    noise = images.clone()
    noise[1, :, 80:] = 7
    one, other = (
        detector.predict(x, samples((96, 128), (80, 128), text=NAMES)) for x in (images, noise)
    )
    assert torch.equal(one[1].pred_instances.scores, other[1].pred_instances.scores)


def test_each_sample_has_its_own_text(detector, images):
    mixed = samples((96, 128), (96, 128))
    mixed[0].set_metainfo(dict(text=('cat',)))
    mixed[1].set_metainfo(dict(text='dog. a cat', custom_entities=True))
    detector.predict(images, mixed)
    for i, names in enumerate((('cat',), ('dog', 'a cat'))):
        alone = samples((96, 128), text=names)
        detector.predict(images[i : i + 1], alone)
        torch.testing.assert_close(mixed[i].pred_instances.scores, alone[0].pred_instances.scores)
        assert set(mixed[i].pred_instances.label_names) <= {'dog', 'a cat', 'cat'}


def test_free_text(detector, images):
    detector.threshold = detector.text_threshold = 0.0
    (sample,) = detector.predict(images[:1], samples((96, 128), text='the cat and a dog'))
    detector.threshold = detector.text_threshold = 0.25
    assert len(sample.pred_instances) == 20
    assert all('cat' in n for n in sample.pred_instances.label_names)


def test_classes_of_the_detector(teacher, images):
    cfg = dict(type='kpu_mm.ZeroShotDetector', teacher=teacher)
    model = MODELS.build(dict(cfg, classes=['cat'], max_per_image=5))
    (sample,) = model(images[:1], samples((96, 128)), mode='predict')
    assert sample.pred_instances.labels.tolist() == [0] * 5
    with pytest.raises(ValueError, match='nothing to look for: pass classes'):
        MODELS.build(cfg).predict(images[:1], samples((96, 128)))


def test_clear_messages(detector, teacher, clip_dir, images):
    with pytest.raises(ValueError, match='is not trained'):
        detector(images, samples((96, 128)), mode='loss')
    clip = dict(type='kpu_mm.CLIPTeacher', model=f'local-dir:{clip_dir}')
    with pytest.raises(ValueError, match=r'takes maps of \(32, 64, 128\)'):
        ZeroShotDetector(teacher, encoder=dict(type='kpu_mm.TeacherEncoder', teacher=clip))
    with pytest.raises(ValueError, match='class list is empty'):
        detector.predict(images[:1], samples((96, 128), text=()))
