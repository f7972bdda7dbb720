import pytest
import torch
import torch.nn.functional as F

from kpu_mm.models.layers.feature_pyramid import PyramidLevel


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
        expected = F.conv_transpose2d(
            expected, second_up.weight, second_up.bias, stride=2
        )
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
