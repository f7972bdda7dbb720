"""Figures of the training log against values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from kpu_mm.models.distill_log import variation
from kpu_mm.structures import Features


def features(vectors, mask=None):
    """Maps of one place that hold the given vectors, (N, C) -> (N, C, 1, 1)."""
    maps = (torch.tensor(vectors)[..., None, None],)
    masks = None if mask is None else (torch.tensor(mask).view(-1, 1, 1, 1),)
    return Features(None, maps, masks)


def test_variation_by_hand():
    # Mean (3, 4, 0) of square 25; variances 4 and 1 along two axes.
    vectors = [[5.0, 5.0, 0.0], [5.0, 3.0, 0.0], [1.0, 5.0, 0.0], [1.0, 3.0, 0.0]]
    share, rank = variation(features(vectors))
    assert share.item() == pytest.approx(5 / 30)
    assert rank.item() == pytest.approx(25 / 17)


@pytest.mark.parametrize(('scale', 'turn'), [(1.0, 0.0), (33.0, 0.7)])
def test_variation_depends_on_neither_scale_nor_axes(scale, turn):
    torch.manual_seed(0)
    variances = torch.tensor([3.0, 2.0, 1.0])
    # Columns that are orthogonal and centred: the covariance is exact.
    basis = torch.linalg.qr(torch.randn(50, 3))[0]
    basis = torch.linalg.qr(basis - basis.mean(0))[0] * 50**0.5
    angle = torch.tensor(turn)
    rotation = torch.eye(3)
    rotation[:2, :2] = torch.stack(
        (torch.stack((angle.cos(), -angle.sin())), torch.stack((angle.sin(), angle.cos())))
    )
    x = scale * (basis * variances.sqrt() + torch.tensor([2.0, 0.0, 0.0])) @ rotation
    # In float32 whatever the autocast.
    with torch.autocast('cpu', torch.bfloat16):
        share, rank = variation(features(x.tolist()))
    assert share.item() == pytest.approx(6 / 10, rel=1e-4)
    assert rank.item() == pytest.approx(36 / 14, rel=1e-4)


def test_padding_and_constants_have_no_variation():
    nan = float('nan')
    vectors = [[2.0, 0.0], [nan, nan], [2.0, 0.0], [2.0, 0.0]]
    share, rank = variation(features(vectors, [True, False, True, True]))
    assert share.item() == rank.item() == 0
    # The mean over maps: one constant, one that only varies.
    line = features([[1.0, 1.0], [-1.0, -1.0]])
    both = Features(None, (*features([[2.0, 0.0]] * 2).maps, *line.maps))
    assert [v.item() for v in variation(both)] == [0.5, 0.5]


def test_a_grid_of_a_large_map_is_enough():
    torch.manual_seed(0)
    small = torch.randn(2, 5, 16, 12)
    # Each place four times, two by two.
    large = small.repeat_interleave(2, -1).repeat_interleave(2, -2)
    mask = torch.rand(2, 1, 16, 12) > 0.3
    masks = mask.repeat_interleave(2, -1).repeat_interleave(2, -2)
    wanted = variation(Features(None, (small,), (mask,)))
    found = variation(Features(None, (large,), (masks,)))
    assert [v.item() for v in found] == [v.item() for v in wanted]
