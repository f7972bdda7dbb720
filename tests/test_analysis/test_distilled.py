import numpy as np
import pytest
import torch

from kpu_mm.analysis.distilled import all_models, extract_pairs, extract_sentinel, load_distiller
from kpu_mm.registry import MODELS
from kpu_mm.visualization import pca_rgb
from tools.analysis_tools.pca_panels import pca_panels

CLOSE = dict(rtol=1e-4, atol=1e-5)


def images_of(*shape):
    torch.manual_seed(0)
    return torch.randint(256, (2, 3, *shape)).float()


@torch.no_grad()
def test_sentinel_is_the_library_model(distilled):
    """`teacher` is the same folder through transformers' own forward."""
    model = distilled[2]
    images = images_of(56, 84)
    mask = torch.ones(2, 56, 84, dtype=torch.bool)
    mask[0, 28:] = False
    found = extract_sentinel(model.student, images, mask)
    expected = model.teachers['teacher'](images, mask)
    torch.testing.assert_close(found.summary, expected.summary, **CLOSE)
    torch.testing.assert_close(found.maps, expected.maps, **CLOSE)
    assert torch.equal(found.masks[0], expected.masks[0])


@torch.no_grad()
def test_loads_what_was_saved(distilled):
    config, checkpoint, model = distilled
    # compiling would show in the type
    loaded = load_distiller({**config, 'compile': dict()}, checkpoint)
    images = images_of(56, 56)
    ours, theirs = (extract_pairs(m, 'other', images) for m in (loaded, model))
    torch.testing.assert_close(ours[0].maps, theirs[0].maps)
    assert not loaded.training


@torch.no_grad()
def test_all_models(distilled):
    models = all_models(distilled[2])
    assert list(models) == ['student', 'sentinel', 'teacher', 'other']
    found = {n: m(images_of(56, 56), None) for n, m in models.items()}
    assert {n: len(f.maps) for n, f in found.items()} == dict(
        student=4, sentinel=1, teacher=1, other=1
    )


def test_a_teacher_named_like_the_student(distilled):
    config = distilled[0]
    teachers = dict(config['teachers'], sentinel=config['teachers']['other'])
    model = MODELS.build(dict(config, teachers=teachers))
    with pytest.raises(ValueError, match="named 'sentinel'"):
        all_models(model)


def test_refusals(distilled, tmp_path):
    config, checkpoint, _ = distilled
    with pytest.raises(FileNotFoundError, match='nothing'):
        load_distiller(config, tmp_path / 'nothing.pth')
    with pytest.raises(ValueError, match=r'no kpu_mm\.KPUDistiller'):
        load_distiller(config['student'], checkpoint)
    fewer = dict(config, terms=dict(s2t=1.0))
    with pytest.raises(RuntimeError, match='unexpected keys'):
        load_distiller(fewer, checkpoint)
    state = torch.load(checkpoint)['state_dict']
    state = {k: v for k, v in state.items() if '.rec.' not in k}
    torch.save(dict(state_dict=state), tmp_path / 'part.pth')
    with pytest.raises(RuntimeError, match=r'missing keys.*rec'):
        load_distiller(config, tmp_path / 'part.pth')
    old = {f'projectors.{k}': v for k, v in state.items()}
    torch.save(dict(state_dict=old), tmp_path / 'old.pth')
    with pytest.raises(RuntimeError, match='train again'):
        load_distiller(config, tmp_path / 'old.pth')
    with pytest.raises(ValueError, match="no 'rot'"):
        load_distiller(config, checkpoint, term='rot')


def test_a_picture_of_each_model(distilled):
    model = distilled[2]
    image = torch.rand(1, 3, 56, 84) * 255
    pictures = pca_panels(model, image)
    assert list(pictures)[:7] == [
        'image',
        'sentinel',
        'student\nstride 4',
        'student\nstride 8',
        'student\nstride 16',
        'student\nstride 32',
        'teacher\nmap 0, stride 14',
    ]
    assert 'student, stride 16\nas teacher, map 0' in pictures
    pairs = sum(len(link.levels.pairs) for link in model.links.values())
    assert len([t for t in pictures if '\nas ' in t]) == pairs
    for picture in pictures.values():
        assert picture.shape[2] == 3
        assert picture.min() >= 0 and picture.max() <= 1
    # the sentinel and the teacher `teacher` are one model
    np.testing.assert_allclose(
        pictures['sentinel'], pictures['teacher\nmap 0, stride 14'], atol=2e-3
    )
    np.testing.assert_allclose(pictures['image'], image[0].movedim(0, -1) / 255, atol=1e-6)


@torch.no_grad()
def test_the_student_wears_the_teachers_colours(distilled):
    model = distilled[2]
    image = torch.rand(1, 3, 56, 84) * 255
    picture = pca_panels(model, image)['student, stride 16\nas other, map 0']
    student, teacher = extract_pairs(model, 'other', image)
    link = model.links['other']
    place = [level for _, level in link.levels.pairs].index(2)
    m = student.maps[place]
    size = teacher.maps[place].shape[-2:]
    m = torch.nn.functional.interpolate(m, size, mode='bilinear')
    mlp = link.s2t.maps[place]
    guess = mlp(m.movedim(1, -1)).movedim(-1, 1)
    expected = pca_rgb(guess[0], like=teacher.maps[place][0])
    np.testing.assert_allclose(picture, expected.movedim(0, -1), atol=1e-5)
