import pytest
import torch

from kpu_mm.analysis import StreamingCKA
from kpu_mm.evaluation.functional import unbiased_linear_cka


def test_batches_give_the_value_of_all_samples():
    x = torch.randn(30, 6, dtype=torch.float64)
    y = torch.cat([x[:, :3], torch.randn(30, 4, dtype=torch.float64)], 1)
    cka = StreamingCKA()
    for a, b in zip(x.split([4, 1, 25]), y.split([4, 1, 25]), strict=True):
        cka.add(a, b)
    assert cka.count == 30
    expected = unbiased_linear_cka(x, y).item()
    assert cka.value() == pytest.approx(expected, rel=1e-9)


def test_positions_are_samples_and_padding_is_none():
    first, second = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 4, 5)
    mask = torch.rand(2, 1, 4, 5) > 0.4
    rows = [
        torch.stack([f[b, :, i, j] for b, _, i, j in mask.nonzero().tolist()])
        for f in (first, second)
    ]
    cka = StreamingCKA()
    # what stands in the padding must not matter
    cka.add(first.masked_fill(~mask, float('nan')), second, mask)
    assert cka.count == mask.sum()
    expected = unbiased_linear_cka(*rows).item()
    assert cka.value() == pytest.approx(expected, rel=1e-9)


def test_features_far_from_zero():
    x = torch.randn(40, 5, dtype=torch.float64)
    y = x @ torch.randn(5, 5, dtype=torch.float64)
    cka = StreamingCKA()
    for a, b in zip((x + 1e6).split(10), (y - 1e6).split(10), strict=True):
        cka.add(a, b)
    expected = unbiased_linear_cka(x, y).item()
    assert cka.value() == pytest.approx(expected, abs=1e-6)


def test_too_few_samples():
    cka = StreamingCKA()
    cka.add(torch.randn(3, 2), torch.randn(3, 2))
    with pytest.raises(ValueError, match=r'four samples.*got 3'):
        cka.value()
