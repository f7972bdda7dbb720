import numpy as np
import torch
import torch.nn.functional as F

from kpu_mm.structures import Features, resize, resize_like


def test_outputs_by_name():
    summary, fine, coarse = torch.ones(1), torch.ones(2), torch.ones(3)
    mask, other = torch.ones(4), torch.ones(5)
    features = Features(summary, (fine, coarse), (mask, other))
    assert list(features.outputs()) == [
        ('summary', summary, None),
        ('map 0', fine, mask),
        ('map 1', coarse, other),
    ]
    assert list(Features(None, (fine,)).outputs()) == [('map 0', fine, None)]


def test_std_over_maps_without_padding():
    torch.manual_seed(0)
    maps = (3 * torch.randn(2, 4, 5, 6) + 1, torch.randn(2, 8, 2, 3))
    masks = (torch.rand(2, 1, 5, 6) > 0.4, torch.rand(2, 1, 2, 3) > 0.2)
    values = np.concatenate(
        [m[mask.expand_as(m)].numpy() for m, mask in zip(maps, masks, strict=True)]
    )
    torch.testing.assert_close(
        Features(None, maps, masks).std(),
        torch.tensor(values.astype(np.float64).std(), dtype=torch.float32),
    )
    everything = np.concatenate([m.flatten().numpy() for m in maps])
    torch.testing.assert_close(Features(None, maps).std().item(), float(everything.std()))


def test_bilinear_by_hand():
    features = Features(None, (torch.tensor([[[[0.0, 4.0]]]]),))
    like = Features(None, (torch.zeros(1, 1, 1, 4),))
    (out,) = resize_like(features, like).maps
    torch.testing.assert_close(out.flatten(), torch.tensor([0.0, 1.0, 3.0, 4.0]))


def test_each_cell_has_a_share():
    # from stride 4 to 16 the mean of 4 x 4 cells, as the order of rows tells
    m = torch.arange(32.0).view(1, 1, 4, 8).requires_grad_()
    out = resize(m, (1, 2), shrink=4)
    torch.testing.assert_close(out.flatten(), torch.tensor([13.5, 17.5]))
    out.sum().backward()
    torch.testing.assert_close(m.grad, torch.full_like(m, 1 / 16))
    # from 4 to 8 both ways are the mean of 2 x 2 cells
    torch.testing.assert_close(resize(m, (2, 4), shrink=2), F.avg_pool2d(m, 2))
    # 224 pixels, strides 4 and 14
    m = torch.zeros(1, 1, 56, 56, requires_grad=True)
    resize(m, (16, 16), shrink=3).sum().backward()
    assert (m.grad > 0).all()
    # 337 pixels: the last cell of stride 16 holds one column of stride 4
    m = torch.randn(1, 1, 4, 85)
    out = resize(m, (1, 22), shrink=4)
    torch.testing.assert_close(out[..., -1], m[..., -1].mean().view(1, 1, 1))
    torch.testing.assert_close(out[..., :-1], F.avg_pool2d(m, 4))


def test_a_mean_with_padding_is_not_valid():
    m = torch.ones(1, 1, 4, 8)
    mask = torch.ones(1, 1, 4, 8, dtype=torch.bool)
    m[..., 7], mask[..., 7] = 1e6, False
    like = Features(None, (torch.zeros(1, 1, 1, 2),))
    out = resize_like(Features(None, (m,), (mask,)), like, shrinks=[4])
    assert out.masks[0].flatten().tolist() == [True, False]
    assert out.maps[0][0, 0, 0, 0] == 1


def test_same_grid_is_untouched():
    features = Features(torch.ones(1, 2), (torch.randn(1, 3, 5, 7),))
    out = resize_like(features, features)
    assert out.maps[0] is features.maps[0]
    assert out.summary is features.summary


def test_a_cell_with_a_share_of_padding_is_not_valid():
    # columns 0 and 1 valid, 2 and 3 padding; doubled: column 3 mixes 1 and 2
    m = torch.tensor([[[[1.0, 1.0, 9.0, 9.0]]]])
    mask = torch.tensor([[[[True, True, False, False]]]])
    like = Features(None, (torch.zeros(1, 1, 1, 8),))
    out = resize_like(Features(None, (m,), (mask,)), like)
    assert out.masks[0].flatten().tolist() == [True] * 3 + [False] * 5
    assert (out.maps[0][out.masks[0]] == 1).all()
