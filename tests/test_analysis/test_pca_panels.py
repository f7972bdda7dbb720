import numpy as np
import torch

from kpu_mm.analysis import pca_panels
from kpu_mm.analysis.distilled import extract_pairs
from kpu_mm.visualization import pca_rgb


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
    np.testing.assert_allclose(
        pictures['image'], image[0].movedim(0, -1) / 255, atol=1e-6
    )


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
