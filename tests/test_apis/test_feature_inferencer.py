import numpy as np
import pytest
import torch
from PIL import Image

from kpu_mm.apis import FeatureInferencer
from kpu_mm.models import ProjectedBackbone
from kpu_mm.models.backbones import load_exported
from kpu_mm.models.teachers import CLIPTeacher
from kpu_mm.visualization import pca_rgb


@pytest.fixture(scope='module')
def raw(pictures):
    image = np.asarray(Image.open(pictures / 'a.png'))
    return torch.tensor(image).permute(2, 0, 1)[None]


def build(student_dir, **kwargs):
    return FeatureInferencer(student_dir, device='cpu', image_size=None, **kwargs)


def same(prediction, features):
    summary = prediction['summary']
    if features.summary is None:
        assert summary is None
    else:
        torch.testing.assert_close(torch.from_numpy(summary), features.summary[0])
    for ours, theirs in zip(prediction['maps'], features.maps, strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), theirs[0])


@torch.no_grad()
def test_features_of_student_and_teachers(student_dir, pictures, raw, clip_dir):
    path = pictures / 'a.png'
    student = load_exported(student_dir)
    (found,) = build(student_dir)(path)['predictions']
    same(found, student.extract(student.normalise(raw)))
    for teacher in ('clip', 'grounding_dino'):
        (found,) = build(student_dir, teacher=teacher)(path)['predictions']
        same(found, ProjectedBackbone(student_dir, teacher).encode(raw))
    (found,) = build(student_dir, encoder='teacher', teacher='clip')(path)['predictions']
    same(found, CLIPTeacher(f'local-dir:{clip_dir}')(raw))


def test_teacher_that_moved(student_dir, pictures, raw, siglip_dir):
    infer = build(
        student_dir,
        encoder='teacher',
        teacher='clip',
        teacher_cfg=dict(model=f'local-dir:{siglip_dir}'),
    )
    (found,) = infer(pictures / 'a.png')['predictions']
    same(found, CLIPTeacher(f'local-dir:{siglip_dir}')(raw))


def test_images_are_resized(student_dir, pictures):
    infer = FeatureInferencer(student_dir, device='cpu', image_size=64)
    shapes = [p['maps'][2].shape for p in infer(pictures)['predictions']]
    assert shapes == [(48, 3, 4), (48, 3, 4), (48, 4, 3)]
    small = infer(Image.open(pictures / 'a.png').resize((64, 48), 3))
    (large,) = infer(pictures / 'a.png')['predictions']
    assert (small['predictions'][0]['summary'] == large['summary']).all()


def test_picture_is_the_pca_of_a_map(student_dir, pictures):
    infer = build(student_dir)
    path = pictures / 'a.png'
    result = infer(path, return_vis=True)
    (prediction,), (picture,) = result['predictions'], result['visualization']
    assert picture.shape == (96, 128, 3)
    # stride 16: 6 x 8 cells
    m = torch.from_numpy(prediction['maps'][2])
    assert m.shape[1:] == (6, 8)
    expected = (pca_rgb(m) * 255).round().to(torch.uint8)
    expected = Image.fromarray(expected.permute(1, 2, 0).numpy())
    expected = np.asarray(expected.resize((128, 96), Image.BILINEAR))
    # OpenCV rounds otherwise
    gap = np.abs(picture.astype(int) - expected)
    assert gap.max() <= 2
    fine = infer(path, return_vis=True, map_index=0)['visualization'][0]
    assert (fine != picture).any()


def test_colours_of_another_map(student_dir, pictures):
    """A map in its own colours is as it would be without asking."""
    infer = build(student_dir)
    path = pictures / 'a.png'
    result = infer(path, return_vis=True)
    own = result['predictions'][0]['maps'][2]
    again = infer(path, return_vis=True, like=own)
    assert (again['visualization'][0] == result['visualization'][0]).all()
    other = infer(path, return_vis=True, like=own[::-1].copy())
    assert (other['visualization'][0] != result['visualization'][0]).any()


def test_files(student_dir, pictures, tmp_path):
    infer = build(student_dir)
    (found,) = infer(pictures / 'a.png', pred_out_dir=tmp_path)['predictions']
    arrays = np.load(tmp_path / 'a.npz')
    assert (arrays['summary'] == found['summary']).all()
    assert (arrays['maps_3'] == found['maps'][3]).all()


def test_clear_messages(student_dir, pictures):
    path = pictures / 'a.png'
    with pytest.raises(ValueError, match='name one of these with teacher'):
        build(student_dir, encoder='teacher')
    with pytest.raises(ValueError, match='no projector into a teacher'):
        build(student_dir, teacher='dino')
    with pytest.raises(ValueError, match="is for encoder='teacher'"):
        build(student_dir, teacher_cfg=dict(model='x'))
    infer = build(student_dir)
    with pytest.raises(ValueError, match='there are 4 maps'):
        infer(path, return_vis=True, map_index=4)
    with pytest.raises(ValueError, match='pass a map of 48 channels'):
        infer(path, return_vis=True, like=np.zeros((3, 2, 2)))
    with pytest.raises(ValueError, match='too small: KPUBackbone needs 32'):
        infer(np.zeros((20, 40, 3), np.uint8))
