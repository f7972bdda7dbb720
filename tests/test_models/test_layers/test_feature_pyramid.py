import pytest
import torch
import torch.nn.functional as F

from kpu_mm.models.layers.feature_pyramid import FeaturePyramid, PyramidLevel


def norm(x, layer):
    """LayerNorm of each cell by its definition."""
    mean = x.mean(1, keepdim=True)
    var = ((x - mean) ** 2).mean(1, keepdim=True)
    weight, bias = layer.weight.view(-1, 1, 1), layer.bias.view(-1, 1, 1)
    return (x - mean) / (var + layer.eps).sqrt() * weight + bias


@torch.no_grad()
@pytest.mark.parametrize('steps', [-2, -1, 0, 1, 2])
def test_agrees_with_its_definition(steps):
    torch.manual_seed(0)
    level = PyramidLevel(16, 6, steps).double()
    for p in level.parameters():
        p += 0.1 * torch.randn_like(p)
    x = expected = torch.randn(2, 16, 5, 7, dtype=torch.float64)
    layers = list(level.layers)
    if steps == 2:
        up, first_norm, _, second_up, *layers = layers
        expected = F.conv_transpose2d(expected, up.weight, up.bias, stride=2)
        expected = F.gelu(norm(expected, first_norm))
        expected = F.conv_transpose2d(expected, second_up.weight, second_up.bias, stride=2)
    elif steps == 1:
        up, *layers = layers
        expected = F.conv_transpose2d(expected, up.weight, up.bias, stride=2)
    else:
        layers = layers[-steps:]
        for _ in range(-steps):
            expected = F.max_pool2d(expected, 2, ceil_mode=True)
    narrow, first, wide, second = layers
    expected = norm(F.conv2d(expected, narrow.weight), first)
    expected = norm(F.conv2d(expected, wide.weight, padding=1), second)
    out = level(x)
    torch.testing.assert_close(out, expected)
    side = {-2: (2, 2), -1: (3, 4), 0: (5, 7), 1: (10, 14), 2: (20, 28)}
    assert out.shape == (2, 6, *side[steps])


def test_each_level_is_made_of_the_closest_map():
    torch.manual_seed(0)
    pyramid = FeaturePyramid([6, 10], [8, 14], 4, (0, 1, 2, 3))
    maps = [torch.randn(2, 6, 5, 7), torch.randn(2, 10, 4, 4)]
    got = pyramid(maps, (45, 61))
    coarse = F.interpolate(maps[1], (3, 4), mode='bilinear', align_corners=False)
    fine = F.interpolate(maps[0], (6, 8), mode='bilinear', align_corners=False)
    for index, source, size in zip(
        range(4), (fine, fine, coarse, coarse), ((12, 16), (6, 8), (3, 4), (2, 2)), strict=True
    ):
        expected = pyramid[str(index)](source)[..., : size[0], : size[1]]
        assert expected.shape[2:] == size
        torch.testing.assert_close(got[index], expected)


def test_the_finer_of_two_and_only_what_is_asked_for():
    pyramid = FeaturePyramid([3, 5], [8, 32], 4, (2,))
    assert list(pyramid) == ['2']
    (m,) = pyramid([torch.randn(1, 3, 8, 8), torch.randn(1, 5, 2, 2)], (64,) * 2)
    assert m.shape == (1, 4, 4, 4)
    assert next(iter(pyramid['2'].parameters())).shape[1] == 3
    assert not FeaturePyramid([3], [16], 4, ())
