import pytest
import torch

from kpu_mm.analysis import Moments
from kpu_mm.models.distillers.feature_stats import feature_std
from kpu_mm.structures import Features


def test_batches_are_as_one():
    torch.manual_seed(0)
    values = 3 * torch.randn(10, 4, 5, 5) + 2
    moments = Moments()
    for batch in values.split(3):
        moments.add(batch)
    assert moments.count == values.numel()
    assert moments.mean == pytest.approx(values.mean().item(), rel=1e-5)
    expected = values.std(correction=0).item()
    assert moments.std == pytest.approx(expected, rel=1e-5)


def test_padding_does_not_count():
    torch.manual_seed(0)
    values = torch.randn(2, 4, 6, 6)
    mask = torch.zeros(2, 1, 6, 6, dtype=torch.bool)
    mask[0, :, :4], mask[1, :, :, :2] = True, True
    real = values.masked_select(mask)
    moments = Moments()
    moments.add(values.masked_fill(~mask, float('nan')), mask)
    assert moments.count == real.numel()
    assert moments.mean == pytest.approx(real.mean().item(), rel=1e-5)


def test_agrees_with_the_log_of_training():
    torch.manual_seed(0)
    maps = (torch.randn(2, 3, 4, 4), 5 * torch.randn(2, 6, 2, 2))
    parts = [Moments(), Moments()]
    for moments, m in zip(parts, maps, strict=True):
        moments.add(m)
    expected = feature_std(Features(None, maps)).item()
    assert (parts[0] + parts[1]).std == pytest.approx(expected, rel=1e-6)
