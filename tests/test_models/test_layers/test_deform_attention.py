import pytest
import torch
from transformers.models.grounding_dino.modeling_grounding_dino import MultiScaleDeformableAttention

from kpu_mm.models.layers import deform_attention
from kpu_mm.models.layers.deform_attention import (
    DeformableAttention,
    deformable_attention,
    flatten_levels,
    reference_points,
    split_levels,
)


def random_inputs(seed, dtype=torch.float32):
    torch.manual_seed(seed)
    shapes = [(7, 5), (4, 6), (1, 2)]
    cells = sum(h * w for h, w in shapes)
    value = torch.randn(2, cells, 3, 4, dtype=dtype)
    locations = torch.rand(2, 11, 3, 3, 2, 2, dtype=dtype) * 1.4 - 0.2
    weights = torch.rand(2, 11, 3, 3, 2, dtype=dtype)
    return value, shapes, locations, weights


@pytest.mark.parametrize('seed', [0, 1])
def test_equals_transformers(seed):
    value, shapes, locations, weights = random_inputs(seed)
    expected = MultiScaleDeformableAttention()(
        value, torch.tensor(shapes), shapes, None, locations, weights, 64
    )
    got = deformable_attention(value, shapes, locations, weights)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_value_worked_by_hand():
    # one head, one 1 x 2 level with values 1 and 3; x = 0.5 lies midway
    value = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)
    locations = torch.tensor([[0.5, 0.5], [0.25, 0.5], [0.0, 0.5]])
    locations = locations.view(1, 3, 1, 1, 1, 2)
    weights = torch.ones(1, 3, 1, 1, 1)
    out = deformable_attention(value, [(1, 2)], locations, weights)
    # at the border half of the weight falls on zero padding
    torch.testing.assert_close(out.flatten(), torch.tensor([2.0, 1.0, 0.5]))


def test_half_precision_is_raised():
    value, shapes, locations, weights = random_inputs(0)
    exact = deformable_attention(value, shapes, locations, weights)
    half = deformable_attention(value.bfloat16(), shapes, locations, weights)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0.05, atol=0.05)


def test_layer_starts_with_directions_around_the_query():
    layer = DeformableAttention(8, num_heads=4, num_levels=1, num_points=2)
    offsets = layer.sampling_offsets.bias.view(4, 1, 2, 2)
    expected = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    torch.testing.assert_close(offsets[:, 0, 0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(offsets[:, 0, 1], 2 * expected, atol=1e-6, rtol=0)


def test_the_question_for_the_kernel_splits_no_graph(monkeypatch):
    """As on a GPU, where the compiler meets it."""
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
    known = deform_attention.has_fused_kernel()

    @torch.compile(backend='eager', fullgraph=True)
    def ask(x):
        return x + 1 if deform_attention.has_fused_kernel() else x - 1

    assert ask(torch.zeros(1)).item() == (1 if known else -1)


def test_bad_heads():
    with pytest.raises(ValueError, match='5 heads do not divide'):
        DeformableAttention(16, num_heads=5)


SHAPES = [(3, 2), (1, 4)]


def test_flatten_and_split_are_inverse():
    maps = [torch.randn(2, 5, h, w) for h, w in SHAPES]
    tokens = flatten_levels(maps)
    assert tokens.shape == (2, 10, 5)
    # row-major: token 3 of the first level is row 1, column 1
    assert torch.equal(tokens[:, 3], maps[0][:, :, 1, 1])
    for a, b in zip(split_levels(tokens, SHAPES), maps, strict=True):
        assert torch.equal(a, b)


def test_reference_points_by_hand():
    points = reference_points([(1, 2), (2, 1)], torch.zeros(()))
    expected = [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]]
    assert points.tolist() == expected
    half = reference_points([(1, 2)], torch.zeros((), dtype=torch.float16))
    assert half.dtype == torch.float32
