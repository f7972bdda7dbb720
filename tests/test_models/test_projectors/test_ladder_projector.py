import pytest
import torch
import torch.nn.functional as F

from kpu_mm.models.projectors import LadderProjector
from kpu_mm.registry import MODELS
from kpu_mm.structures import Features


def build(**kwargs):
    return MODELS.build(
        dict(
            type='kpu_mm.LadderProjector',
            in_summary=12,
            out_summary=5,
            in_channels=[12],
            out_channels=[7],
            rungs=3,
            hidden=6,
            last_hidden=8,
            **kwargs,
        )
    )


def sum_of_mlps(weights, prefix, x):
    """UNIC's projection: the sum over blocks of MLP_i(x_i)."""
    total = 0
    for i in range(3):
        w1, b1, w2, b2 = (
            weights[f'{prefix}.{i}.{layer}.{kind}']
            for layer in (0, 2)
            for kind in ('weight', 'bias')
        )
        part = x[..., 4 * i : 4 * (i + 1)]
        total = total + F.gelu(part @ w1.T + b1) @ w2.T + b2
    return total


def test_agrees_with_the_equations():
    torch.manual_seed(0)
    projector = build().double()
    weights = dict(projector.named_parameters())
    for p in weights.values():
        p.data = torch.randn_like(p)
    summary = torch.randn(2, 12, dtype=torch.float64)
    m = torch.randn(2, 12, 3, 5, dtype=torch.float64)
    mask = torch.ones(2, 1, 3, 5, dtype=torch.bool)
    got = projector(Features(summary, (m,), (mask,)))
    torch.testing.assert_close(
        got.summary, sum_of_mlps(weights, 'summary', summary)
    )
    expected = sum_of_mlps(weights, 'maps.0', m.movedim(1, -1))
    torch.testing.assert_close(got.maps[0], expected.movedim(-1, 1))
    assert got.masks == (mask,)
    # the last rung is another width
    assert [len(weights[f'maps.0.{i}.0.bias']) for i in range(3)] == [6, 6, 8]


def test_initial_weights():
    torch.manual_seed(0)
    projector = LadderProjector(None, None, [768 * 2], [768], rungs=2)
    for name, p in projector.named_parameters():
        if name.endswith('bias'):
            assert not p.any()
        else:
            assert float(p.std()) == pytest.approx(0.02, rel=0.01)
    assert projector.summary is None
    assert len(projector.maps[0][1][0].weight) == 3072


def test_other_number_of_blocks():
    with pytest.raises(ValueError, match='not those of 5 blocks'):
        LadderProjector(None, None, [12], [4], rungs=5)
