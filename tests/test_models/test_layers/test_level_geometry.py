import torch

from kpu_mm.models.layers.deform_attention import (
    flatten_levels,
    reference_points,
    split_levels,
)

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
