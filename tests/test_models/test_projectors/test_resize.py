import torch

from kpu_mm.models.projectors import resize
from kpu_mm.structures import Features


def test_bilinear_by_hand():
    features = Features(None, (torch.tensor([[[[0.0, 4.0]]]]),))
    like = Features(None, (torch.zeros(1, 1, 1, 4),))
    (out,) = resize(features, like).maps
    torch.testing.assert_close(
        out.flatten(), torch.tensor([0.0, 1.0, 3.0, 4.0])
    )


def test_same_grid_is_untouched():
    features = Features(torch.ones(1, 2), (torch.randn(1, 3, 5, 7),))
    out = resize(features, features)
    assert out.maps[0] is features.maps[0]
    assert out.summary is features.summary


def test_a_cell_with_a_share_of_padding_is_not_valid():
    # columns 0 and 1 valid, 2 and 3 padding; doubled: column 3 mixes 1 and 2
    m = torch.tensor([[[[1.0, 1.0, 9.0, 9.0]]]])
    mask = torch.tensor([[[[True, True, False, False]]]])
    like = Features(None, (torch.zeros(1, 1, 1, 8),))
    out = resize(Features(None, (m,), (mask,)), like)
    assert out.masks[0].flatten().tolist() == [True] * 3 + [False] * 5
    assert (out.maps[0][out.masks[0]] == 1).all()
