import mmcv
import numpy as np
import open_clip
import pytest

from kpu_mm.apis import (
    FeatureInferencer,
    ZeroShotClassificationInferencer,
    ZeroShotDetectionInferencer,
    ZeroShotSegmentationInferencer,
)
from projects.demo_page.comparison import TEMPLATES, Comparison, heat_overlay
from projects.demo_page.inferencer_pool import ENCODERS


@pytest.fixture(scope='module')
def comparison(pool):
    return Comparison(pool)


@pytest.fixture(scope='module')
def image(pictures):
    return mmcv.imread(pictures / 'a.png')


@pytest.fixture
def infer(student_dir, image):
    """Runs a separate Inferencer on the image."""

    def infer(kind, encoder, teacher=None, **options):
        inferencer = kind(student_dir, device='cpu', encoder=encoder, teacher=teacher)
        result = inferencer(image, return_vis=True, **options)
        return result['predictions'][0], result['visualization'][0]

    return infer


@pytest.mark.parametrize('teacher', ['clip', 'grounding_dino'])
def test_features(comparison, infer, image, teacher):
    pair = comparison.features(image, teacher)
    assert pair.student.picture.shape == image.shape
    # The student is drawn with the teacher's components, so it comes last.
    like = None
    for encoder in reversed(ENCODERS):
        prediction, picture = infer(FeatureInferencer, encoder, teacher, map_index=0, like=like)
        like = prediction['maps'][0]
        ours = getattr(pair, encoder)
        np.testing.assert_array_equal(ours.picture, picture)
        np.testing.assert_array_equal(ours.prediction['maps'][0], like)


def test_classes(comparison, infer, image):
    names = ['cat', 'dog', 'red car']
    found = comparison.classes(image, 'clip', names)
    for encoder, ours in zip(ENCODERS, found, strict=True):
        prediction, _ = infer(
            ZeroShotClassificationInferencer, encoder, classes=names, templates=TEMPLATES
        )
        assert ours == prediction
    # Student and teacher are two models indeed.
    assert found[0]['scores'] != found[1]['scores']


def test_boxes(comparison, infer, image):
    pair = comparison.boxes(image, 'grounding_dino', 'a cat. a dog.', 0.4)
    for encoder, ours in zip(ENCODERS, pair, strict=True):
        prediction, picture = infer(
            ZeroShotDetectionInferencer, encoder, texts='a cat. a dog.', threshold=0.4
        )
        assert ours.prediction == prediction and prediction['names']
        np.testing.assert_array_equal(ours.picture, picture)


def test_heat_maps_have_one_scale(comparison, infer, image):
    pair = comparison.heat(image, 'clip', 'a cat')
    heats = [
        infer(
            ZeroShotSegmentationInferencer,
            encoder,
            classes=['a cat'],
            templates=TEMPLATES,
            score_maps='cosine',
        )[0]['scores'][0]
        for encoder in ENCODERS
    ]
    # One scale for both, from the lowest to the highest value of either.
    low, high = np.min(heats), np.max(heats)
    for ours, heat in zip(pair, heats, strict=True):
        np.testing.assert_array_equal(ours.prediction['scores'][0], heat)
        expected = heat_overlay(image[..., ::-1], heat, low, high)
        np.testing.assert_array_equal(ours.picture, expected)


def test_texts_are_encoded_once(comparison, image, monkeypatch):
    encoded = []
    encode = open_clip.CLIP.encode_text

    def count(self, text, *args, **kwargs):
        encoded.append(len(text))
        return encode(self, text, *args, **kwargs)

    monkeypatch.setattr(open_clip.CLIP, 'encode_text', count)
    names = ['remote control', 'red dog']
    first = comparison.classes(image, 'clip', names)
    assert sum(encoded) == len(names) * len(TEMPLATES)
    # The second call finds the embeddings of the first.
    assert comparison.classes(image, 'clip', names) == first
    assert sum(encoded) == len(names) * len(TEMPLATES)


def test_colours_by_hand():
    image = np.full((1, 3, 3), 100, np.uint8)
    heat = np.array([[-1.0, 0.5, 9.0]])
    drawn = heat_overlay(image, heat, 0.0, 1.0, opacity=0.5)
    # The ends of turbo: dark blue (48, 18, 59) and dark red (122, 4, 3).
    np.testing.assert_allclose(drawn[0, 0], [74, 59, 80], atol=1)
    np.testing.assert_allclose(drawn[0, 2], [111, 52, 51], atol=1)
    # The middle of turbo is green.
    assert drawn[0, 1].argmax() == 1


def test_opacity_and_flat_heat():
    image = np.random.default_rng().integers(0, 256, (4, 5, 3), np.uint8)
    flat = np.full((4, 5), 0.3)
    np.testing.assert_array_equal(heat_overlay(image, flat, 0.3, 0.3, opacity=0.0), image)
    drawn = heat_overlay(image, flat, 0.3, 0.3, opacity=1.0)
    assert drawn.dtype == np.uint8 and (drawn == drawn[0, 0]).all()
