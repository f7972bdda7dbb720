import pytest
import torch
import torch.nn.functional as F

from kpu_mm.models.projectors import LayerwiseProjector, MLPProjector
from kpu_mm.registry import MODELS
from kpu_mm.structures import Features


def build(**kwargs):
    return MODELS.build(
        dict(
            type='kpu_mm.LayerwiseProjector',
            in_summary=12,
            out_summary=5,
            in_channels=[12],
            out_channels=[7],
            num_blocks=3,
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
    torch.testing.assert_close(got.summary, sum_of_mlps(weights, 'summary', summary))
    expected = sum_of_mlps(weights, 'maps.0', m.movedim(1, -1))
    torch.testing.assert_close(got.maps[0], expected.movedim(-1, 1))
    assert got.masks == (mask,)
    # the last MLP is wider
    assert [len(weights[f'maps.0.{i}.0.bias']) for i in range(3)] == [6, 6, 8]


def test_initial_weights():
    torch.manual_seed(0)
    projector = LayerwiseProjector(None, None, [768 * 2], [768], num_blocks=2)
    for name, p in projector.named_parameters():
        if name.endswith('bias'):
            assert not p.any()
        else:
            assert float(p.std()) == pytest.approx(0.02, rel=0.01)
    assert projector.summary is None
    assert len(projector.maps[0][1][0].weight) == 3072


def test_other_number_of_blocks():
    with pytest.raises(ValueError, match='not those of 5 blocks'):
        LayerwiseProjector(None, None, [12], [4], num_blocks=5)


def test_projects_every_position_by_its_own_mlp():
    torch.manual_seed(0)
    projector = MLPProjector(6, 4, [3, 5], [2, 7], hidden=8)
    features = Features(torch.randn(2, 6), (torch.randn(2, 3, 4, 3), torch.randn(2, 5, 2, 2)))
    out = projector(features)
    assert out.summary.shape == (2, 4)
    assert [m.shape for m in out.maps] == [(2, 2, 4, 3), (2, 7, 2, 2)]
    first, last = projector.maps[1][0], projector.maps[1][2]
    hidden = F.gelu(first.weight @ features.maps[1][1, :, 0, 1] + first.bias)
    torch.testing.assert_close(out.maps[1][1, :, 0, 1], last.weight @ hidden + last.bias)


def test_no_summary():
    projector = MLPProjector(None, None, [3], [2], hidden=4)
    features = Features(torch.randn(1, 6), (torch.randn(1, 3, 2, 2),))
    assert projector(features).summary is None
    assert projector.summary is None


def test_chosen_mlps():
    projector = MLPProjector(6, 4, [3, 3], [2, 7], hidden=8)
    m = torch.randn(2, 3, 4, 3)
    both = projector(Features(None, (m, m)))
    chosen = projector(Features(None, (m,)), mlps=(1,))
    assert torch.equal(chosen.maps[0], both.maps[1])


def test_from_weights_alone():
    projector = MLPProjector(6, 4, [3, 5], [2, 7], hidden=8)
    again = MLPProjector.from_weights(projector.state_dict(), 'clip')
    features = Features(torch.randn(2, 6), (torch.randn(2, 3, 4, 3), torch.randn(2, 5, 2, 2)))
    first, second = projector(features), again(features)
    assert torch.equal(first.summary, second.summary)
    assert all(map(torch.equal, first.maps, second.maps))
    ladder = LayerwiseProjector(None, None, [12], [4], num_blocks=3)
    with pytest.raises(RuntimeError, match=r"'clip' is not a kpu_mm\.MLPProj"):
        MLPProjector.from_weights(ladder.state_dict(), 'clip')


def test_from_weights_of_a_subclass():
    class Other(MLPProjector):
        pass

    weights = Other(None, None, [3], [2], hidden=8).state_dict()
    with pytest.raises(RuntimeError, match=r"'clip' is not a kpu_mm\.MLPProjector but a .*Other"):
        MLPProjector.from_weights(weights, 'clip', Other)
    MLPProjector.from_weights(weights, 'clip', 'kpu_mm.MLPProjector')
