import numpy as np
import pytest
import torch
from PIL import Image

from kpu_mm.analysis import embed, knn_accuracy, labelled_images, vectors_of
from kpu_mm.registry import MODELS
from kpu_mm.structures import Features


@pytest.fixture
def folder(tmp_path):
    """Three red and five blue images."""
    for name, count, channel in (('red', 3, 0), ('blue', 5, 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            pixels = np.zeros((64, 96, 3), np.uint8)
            pixels[..., channel] = 200 + i
            Image.fromarray(pixels).save(tmp_path / name / f'{i}.png')
    return tmp_path


def test_images_and_labels(folder):
    batches, classes = labelled_images(folder, 56)
    images, labels = next(iter(batches))
    assert classes == ['blue', 'red']
    assert labels.tolist() == [0] * 5 + [1] * 3
    assert images.shape == (8, 3, 56, 56) and images.dtype == torch.uint8
    assert (images[5, 0] == 200).all() and (images[5, 1:] == 0).all()


def test_a_limit_takes_from_all_classes(folder):
    batches, _ = labelled_images(folder, 56, limit=4)
    assert torch.cat([labels for _, labels in batches]).tolist() == [
        0,
        0,
        0,
        1,
    ]
    with pytest.raises(FileNotFoundError, match='nothing'):
        labelled_images(folder / 'nothing', 56)


def test_same_pixels_as_the_configs_pipeline(tmp_path):
    from mmpretrain.datasets import CenterCrop, ResizeEdge

    rng = np.random.default_rng(0)
    (tmp_path / 'a').mkdir()
    pixels = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a' / '0.png')
    results = dict(img=pixels[..., ::-1], img_shape=(70, 90))
    resize = ResizeEdge(
        64, edge='short', backend='pillow', interpolation='bicubic'
    )
    results = CenterCrop(56).transform(resize.transform(results))
    ((images, _),) = labelled_images(tmp_path, 56)[0]
    expected = results['img'][..., ::-1]
    difference = images[0].movedim(0, -1).numpy().astype(int) - expected
    assert np.abs(difference).max() <= 1


def test_a_model_without_a_summary_gives_its_coarsest_map():
    images = torch.rand(4, 3, 8, 8)
    labels = torch.tensor([0, 1, 0, 1])

    def maps(images, mask):
        return Features(None, (images.repeat(1, 2, 1, 1), images))

    (vectors, known) = embed(
        dict(m=maps),
        [(images[:3], labels[:3]), (images[3:], labels[3:])],
        torch.device('cpu'),
    )['m']
    means = images.mean((2, 3))
    torch.testing.assert_close(vectors, means / means.norm(dim=1)[:, None])
    assert known.tolist() == [0, 1, 0, 1]


def test_accuracy_by_hand():
    angle = torch.tensor([0.0, 0.1, 1.5, 1.6])
    bank = (
        torch.stack([angle.cos(), angle.sin()], 1),
        torch.tensor([0, 0, 1, 1]),
    )
    angle = torch.tensor([0.2, 1.4, 0.9, 0.3])
    # nearest neighbours: 0, 1, 1 (1.5 is closer than 0.1), 0
    queries = torch.stack([angle.cos(), angle.sin()], 1)
    labels = torch.tensor([0, 1, 0, 1])
    assert knn_accuracy(bank, (queries, labels), 2, k=1) == 50


@torch.no_grad()
def test_models_of_a_run(distilled):
    model = distilled[2]
    models = vectors_of(model)
    assert set(models) == {
        'student',
        'sentinel',
        'teacher',
        'other',
        'student as teacher',
        'student as other',
    }
    images = torch.rand(2, 3, 56, 56) * 255
    summary = model.student.encode(images).summary
    expected = model.links['other'].s2t.summary(summary)
    found = models['student as other'](images, None).summary
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_student_as_a_teacher_without_summary(distilled, grounding_dino_dir):
    teacher = dict(
        type='kpu_mm.GroundingDINOTeacher', source=str(grounding_dino_dir)
    )
    model = MODELS.build({**distilled[0], 'teachers': dict(gdino=teacher)})
    model.eval()
    images = torch.rand(2, 3, 64, 96) * 255
    found = vectors_of(model)['student as gdino'](images, None)
    assert found.summary is None
    mlp = model.links['gdino'].s2t.maps[-1]
    coarsest = model.student.encode(images).maps[3]
    torch.testing.assert_close(
        found.maps[-1], mlp(coarsest.movedim(1, -1)).movedim(-1, 1)
    )
    assert found.maps[-1].shape[1] == model.teachers['gdino'].channels[-1]
