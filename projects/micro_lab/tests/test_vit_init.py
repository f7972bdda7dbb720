from __future__ import annotations

import pytest
import torch

from projects.micro_lab.vit_init import (
    POSITION_CHANNELS,
    neighbour_heads_,
    position_table,
    spread_patches_,
)

STEPS = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]


@pytest.mark.parametrize('size', [16, 24])
def test_each_head_finds_its_neighbour(size):
    torch.manual_seed(0)
    heads, side = 8, 8
    width = heads * size
    query, key = torch.empty(2, width, width)
    neighbour_heads_(query, key, heads)
    tokens = position_table(side, side, width)
    q, k = (
        (tokens @ weight.T).unflatten(1, (heads, size))
        for weight in (query, key)
    )
    weights = torch.einsum('ihc,jhc->hij', q, k) / size**0.5
    found = weights.argmax(2)
    rows, columns = torch.meshgrid(
        torch.arange(side), torch.arange(side), indexing='ij'
    )
    for head, (down, right) in enumerate(STEPS):
        row, column = (rows + down).flatten(), (columns + right).flatten()
        inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
        wanted = row * side + column
        assert torch.equal(found[head][inside], wanted[inside])


def test_patches_keep_out_of_the_positions():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.ones(64, 3, 8, 8))
    spread_patches_(weight)
    assert not weight[:POSITION_CHANNELS].any()
    images = torch.randn(50, 3, 8, 8)
    out = torch.nn.functional.conv2d(images, weight)[:, POSITION_CHANNELS:]
    assert out.std().item() == pytest.approx(1, abs=0.05)
    table = position_table(3, 4, 64)
    assert table.shape == (12, 64)
    assert not table[:, POSITION_CHANNELS:].any()
    assert len(table.unique(dim=0)) == 12
