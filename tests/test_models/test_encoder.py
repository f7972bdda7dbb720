import pytest
import torch

from kpu_mm.models.encoder import Encoder, level_masks, nearest_size, resize_mask, to_map
from kpu_mm.registry import MODELS


def build(kind, source):
    torch.manual_seed(0)
    config = dict(type=f'kpu_mm.{kind}')
    if kind == 'TeacherBackbone':
        config['teacher'] = dict(type='kpu_mm.DINOTeacher', source=source)
    else:
        config['source' if kind == 'DINOTeacher' else 'sentinel'] = source
    if kind != 'DINOTeacher':
        config['out_type'] = 'features'
    return MODELS.build(config).eval()


@pytest.mark.parametrize('kind', ['KPUBackbone', 'ViTBackbone', 'TeacherBackbone', 'DINOTeacher'])
def test_students_and_teachers_keep_the_contract(kind, dinov2_dir):
    encoder = build(kind, str(dinov2_dir))
    assert isinstance(encoder, Encoder)
    images = torch.randint(256, (2, 3, 56, 84)).byte()
    mask = torch.ones(2, 56, 84, dtype=torch.bool)
    mask[1, 28:] = False
    with torch.no_grad():
        features = encoder.encode(images, mask)
        assert encoder.encode(images).masks is None
    assert features.summary.shape == (2, encoder.summary_channels)
    assert tuple(m.shape[1] for m in features.maps) == encoder.channels
    for m, valid, stride in zip(features.maps, features.masks, encoder.strides, strict=True):
        assert abs(m.shape[-2] * stride - 56) < stride
        assert abs(m.shape[-1] * stride - 84) < stride
        assert valid.shape == (2, 1, *m.shape[-2:])
        assert valid[0].all() and not valid[1, :, -1].any()


def test_a_compiled_extract_is_what_encode_calls(dinov2_dir):
    student = build('ViTBackbone', str(dinov2_dir))
    images = torch.zeros(1, 3, 28, 28)
    expected = student.extract(student.normalise(images))
    student.extract = lambda images: expected
    assert student.encode(images).summary is expected.summary


@pytest.mark.parametrize(
    ('size', 'expected'), [((5, 14), (14, 14)), ((20, 21), (14, 28)), ((56, 62), (56, 56))]
)
def test_nearest_multiple_of_the_patch(size, expected):
    assert nearest_size(*size, 14) == expected


def test_mask_helpers():
    mask = torch.tensor([[[1, 1, 0, 0]]]).bool()
    assert resize_mask(mask, (2, 2)).tolist() == [[[True, False]] * 2]
    tokens = torch.arange(6.0).view(1, 6, 1)
    assert to_map(tokens, (2, 3))[0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_masks_take_the_nearest_pixel():
    maps = [torch.zeros(1, 5, 2, 3), torch.zeros(1, 5, 1, 1)]
    mask = torch.zeros(1, 4, 6, dtype=torch.bool)
    mask[:, :2, :3] = True
    fine, coarse = level_masks(maps, mask)
    assert fine.tolist() == [[[[True, True, False], [False, False, False]]]]
    assert coarse.tolist() == [[[[True]]]]
    assert level_masks(maps, None) is None
