import math

import pytest
import torch

from kpu_mm.models.losses import AlignLoss, cosine_loss, masked_mean, smooth_l1_loss
from kpu_mm.structures import Features


def test_cosine_by_hand():
    x = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0]])
    y = torch.tensor([[4.0, 3.0], [-2.0, 0.0], [5.0, 5.0]])
    torch.testing.assert_close(cosine_loss(x, y), torch.tensor([1 - 24 / 25, 2.0, 0.0]))


def test_smooth_l1_by_hand():
    # |0.5| -> 0.125, |3| -> 2.5; mean over two channels
    x = torch.tensor([[0.5, 3.0]])
    loss = smooth_l1_loss(x, torch.zeros_like(x))
    torch.testing.assert_close(loss, torch.tensor([1.3125]))


def test_masked_mean_by_hand():
    values = torch.tensor([[[1.0, 2.0], [3.0, math.nan]], [[8.0, 8], [8, 8]]])
    mask = torch.tensor([[[[1, 1], [1, 0]]], [[[0, 0], [0, 0]]]]).bool()
    torch.testing.assert_close(masked_mean(values, mask), torch.tensor([2.0, 0.0]))


def test_align_by_hand():
    # summaries: 1 - 0.96 = 0.04
    # map, two cells: (3, 4) against (4, 3): cosine 0.04, smooth L1 0.5;
    #                 (0, 1) against (0, 1): both 0
    first = Features(torch.tensor([[3.0, 4.0]]), (torch.tensor([[[[3.0, 0.0]], [[4.0, 1.0]]]]),))
    second = Features(torch.tensor([[4.0, 3.0]]), (torch.tensor([[[[4.0, 0.0]], [[3.0, 1.0]]]]),))
    expected = 1.0 * 0.04 + 0.9 * 0.02 + 0.1 * 0.25
    torch.testing.assert_close(AlignLoss()(first, second), torch.tensor([expected]))
    no_summary = second._replace(summary=None)
    torch.testing.assert_close(AlignLoss()(first, no_summary), torch.tensor([expected - 0.04]))


def test_terms_of_other_recipes_by_hand():
    # summary (3, 4) against (4, 6): smooth L1 of 1 and 2 is 0.5 and 1.5
    # map: squares of 1, 1 and 2, 0 in two cells, means 1 and 2
    first = Features(torch.tensor([[3.0, 4.0]]), (torch.tensor([[[[1.0, 2.0]], [[1.0, 5.0]]]]),))
    second = Features(torch.tensor([[4.0, 6.0]]), (torch.tensor([[[[0.0, 0.0]], [[2.0, 5.0]]]]),))
    loss = AlignLoss(summary=0, cosine=0, smooth_l1=0, mse=3.0, summary_smooth_l1=0.5)
    torch.testing.assert_close(loss(first, second), torch.tensor([3.0 * 1.5 + 0.5 * 1.0]))
    with pytest.raises(ValueError, match='compares no maps'):
        AlignLoss(cosine=0, smooth_l1=0)


def test_unic_loss():
    """The mean over CLS and patches of half cosine, half smooth L1."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 8)
    v, w = torch.randn(2, 3, 8, 4, 4)
    loss = AlignLoss(summary=0.25, cosine=0.25, smooth_l1=0.25, summary_smooth_l1=0.25)
    halves = [
        0.5 * cosine_loss(x, y) + 0.5 * smooth_l1_loss(x, y),
        (0.5 * cosine_loss(v, w) + 0.5 * smooth_l1_loss(v, w)).mean((1, 2)),
    ]
    torch.testing.assert_close(loss(Features(x, (v,)), Features(y, (w,))), sum(halves) / 2)


def test_mean_over_maps_and_zero_when_equal():
    torch.manual_seed(0)
    maps = (torch.randn(3, 5, 4, 4), torch.randn(3, 7, 2, 2))
    same = Features(torch.randn(3, 6), maps)
    torch.testing.assert_close(AlignLoss()(same, same), torch.zeros(3), atol=1e-6, rtol=0)
    other = Features(None, (torch.randn(3, 5, 4, 4), maps[1]))
    one = AlignLoss()(Features(None, maps[:1]), Features(None, other.maps[:1]))
    torch.testing.assert_close(AlignLoss()(Features(None, maps), other), one / 2)


def test_weighted_mean_over_maps():
    # 1 - cosine is 1 in the first map, 2 in the second; smooth L1 is off
    x = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    y = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    first, second = Features(None, (x, x)), Features(None, (y, -x))
    loss = AlignLoss(cosine=1.0, smooth_l1=0.0)
    torch.testing.assert_close(loss(first, second), torch.tensor([1.5]))
    torch.testing.assert_close(loss(first, second, (0.75, 0.25)), torch.tensor([1.25]))


def test_padding_counts_nowhere():
    torch.manual_seed(1)
    a, b = torch.randn(2, 2, 3, 4, 5)
    mask = torch.ones(2, 1, 4, 5, dtype=torch.bool)
    mask[:, :, :, 3:] = False
    cropped = AlignLoss()(Features(None, (a[..., :3],)), Features(None, (b[..., :3],)))
    a[..., 3:] = 1e6
    masked = AlignLoss()(Features(None, (a,), (mask,)), Features(None, (b,)))
    torch.testing.assert_close(masked, cropped)
    # where both have masks a cell counts only if both see the image
    other = mask.clone()
    other[:, :, 2:] = False
    both = AlignLoss()(Features(None, (a,), (mask,)), Features(None, (b,), (other,)))
    torch.testing.assert_close(
        both, AlignLoss()(Features(None, (a[:, :, :2, :3],)), Features(None, (b[:, :, :2, :3],)))
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_float32_under_autocast(dtype):
    a = Features(None, (torch.full((1, 64, 2, 2), 200.0, dtype=dtype),))
    b = Features(None, (torch.full((1, 64, 2, 2), 100.0, dtype=dtype),))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = AlignLoss()(a, b)
    assert loss.dtype == torch.float32
    # parallel vectors: only 0.1 * (100 - 0.5) is left; 64 * 200^2 would
    # overflow float16
    torch.testing.assert_close(loss, torch.tensor([9.95]))


def test_dune_loss():
    """The mean over the outputs that a teacher has of half cosine, half smooth L1."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 8)
    v, w = torch.randn(2, 3, 8, 4, 4)
    loss = AlignLoss(0.5, 0.5, 0.5, summary_smooth_l1=0.5, average=True)
    summaries = 0.5 * cosine_loss(x, y) + 0.5 * smooth_l1_loss(x, y)
    maps = (0.5 * cosine_loss(v, w) + 0.5 * smooth_l1_loss(v, w)).mean((1, 2))
    first = Features(x, (v,))
    torch.testing.assert_close(loss(first, Features(y, (w,))), (summaries + maps) / 2)
    torch.testing.assert_close(loss(first, Features(None, (w,))), maps)
