import torch
import torch.nn.functional as F

from kpu_mm.models.projectors import MLPProjector
from kpu_mm.structures import Features


def test_projects_every_position_by_its_own_mlp():
    torch.manual_seed(0)
    projector = MLPProjector(6, 4, [3, 5], [2, 7], hidden=8)
    features = Features(
        torch.randn(2, 6), (torch.randn(2, 3, 4, 3), torch.randn(2, 5, 2, 2))
    )
    out = projector(features)
    assert out.summary.shape == (2, 4)
    assert [m.shape for m in out.maps] == [(2, 2, 4, 3), (2, 7, 2, 2)]
    first, last = projector.maps[1][0], projector.maps[1][2]
    hidden = F.gelu(first.weight @ features.maps[1][1, :, 0, 1] + first.bias)
    torch.testing.assert_close(
        out.maps[1][1, :, 0, 1], last.weight @ hidden + last.bias
    )


def test_no_summary():
    projector = MLPProjector(None, None, [3], [2], hidden=4)
    features = Features(torch.randn(1, 6), (torch.randn(1, 3, 2, 2),))
    assert projector(features).summary is None
    assert projector.summary is None
