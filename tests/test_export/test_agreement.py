import pytest
import torch

from kpu_mm.export.agreement import largest_difference


def model(images):
    return dict(summary=images.mean((2, 3)), map_4=images / 255)


def test_largest_over_all_images_and_outputs():
    def off(images):
        # 5e-5 in values of up to 1, at one size only
        return dict(model(images), map_4=images / 255 + 5e-5 * len(images))

    assert largest_difference('x', model, model) == 0
    got = largest_difference('x', off, model, [(1, 8, 8)])
    assert got == pytest.approx(5e-5, rel=1e-2)
    with pytest.raises(RuntimeError, match=r"'map_4' for images \(3, 3, 8, 8"):
        largest_difference('x', off, model, [(1, 8, 8), (3, 8, 8)])


def test_large_values_may_differ_more():
    def off(images):
        return dict(model(images), summary=images.mean((2, 3)) + 1e-3)

    # of some 130: 8e-6
    assert largest_difference('x', off, model, [(2, 9, 8)]) < 1e-5


@pytest.mark.parametrize(
    'wrong',
    [
        lambda images: dict(model(images), more=images),
        lambda images: dict(model(images), map_4=images[..., :-1]),
        lambda images: dict(model(images), map_4=images * torch.nan),
    ],
)
def test_refuses(wrong):
    with pytest.raises(RuntimeError, match=r'student\.onnx .*not written'):
        largest_difference('student.onnx', wrong, model, [(1, 8, 8)])
