import copy

import pytest
import torch
from torch import nn

from kpu_mm.models.normalizers import AffineMap, PHISNormalizer, StandardNormalizer
from kpu_mm.structures import Features

NAMES = [
    'GlobalStandardNormalizer',
    'StandardNormalizer',
    'PCANormalizer',
    'ZCANormalizer',
    'HCANormalizer',
    'PHISNormalizer',
]


def assert_close(first, second, **tolerance):
    for a, b in zip(first.outputs(), second.outputs(), strict=True):
        torch.testing.assert_close(a[1], b[1], **tolerance)


@pytest.mark.parametrize('name', NAMES)
def test_inverse_is_exact(fit, features, name):
    normalizer = fit(name)
    there = normalizer(features)
    assert there.masks is features.masks
    assert [v.shape for _, v, _ in there.outputs()] == [v.shape for _, v, _ in features.outputs()]
    back = normalizer.invert(there)
    for (_, a, _), (_, b, _) in zip(back.outputs(), features.outputs(), strict=True):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()


@pytest.mark.parametrize('name', NAMES)
def test_state_dict_carries_the_statistics(fit, features, name):
    normalizer = fit(name)
    other = type(normalizer)(8, (12, 6))
    assert not other.fitted
    other.load_state_dict(normalizer.state_dict())
    assert other.fitted
    assert_close(other(features), normalizer(features), rtol=0, atol=0)


def test_unfitted():
    normalizer = PHISNormalizer(None, (4,))
    with pytest.raises(RuntimeError, match='NormalizerFitHook'):
        normalizer(Features(None, (torch.zeros(1, 4, 2, 2),)))


def test_statistics_of_another_kind(fit):
    state = fit('ZCANormalizer').state_dict()
    with pytest.raises(RuntimeError, match=r'targets of a ZCANormalizer.*PHIS'):
        PHISNormalizer(8, (12, 6)).load_state_dict(state)


def test_float32_whatever_the_autocast(fit, features):
    normalizer = fit('PHISNormalizer')
    exact = normalizer(features)
    with torch.autocast('cpu', torch.bfloat16):
        assert_close(normalizer(features), exact, rtol=0, atol=0)
    half = features._replace(maps=tuple(m.bfloat16() for m in features.maps))
    assert normalizer(half).maps[0].dtype == torch.float32


def test_summary_may_be_left_as_it_is(fit, features):
    normalizer = fit('StandardNormalizer', summary=False)
    there = normalizer(features)
    assert torch.equal(there.summary, features.summary)
    assert not torch.equal(there.maps[0], features.maps[0])
    assert not any('summary' in k for k in normalizer.state_dict())


def test_teacher_without_summary(features, moments_of):
    features = features._replace(summary=None)
    normalizer = StandardNormalizer(None, (12, 6))
    normalizer.fit(moments_of(features))
    assert normalizer(features).summary is None


def test_errors_name_the_output(features, moments_of):
    still = features._replace(maps=(features.maps[0] * 0, features.maps[1]))
    with pytest.raises(ValueError, match=r'^map 0: its features are all'):
        PHISNormalizer(8, (12, 6)).fit(moments_of(still))


def make_affine(dense, channels=5):
    torch.manual_seed(0)
    weight = torch.rand(channels, dtype=torch.float64) + 0.5
    if dense:
        weight = weight * torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))[0]
    inverse = torch.linalg.inv(weight) if dense else 1 / weight
    return AffineMap(10 * torch.randn(channels), weight, inverse)


def test_affine_map_by_hand():
    diagonal = AffineMap(*map(torch.tensor, ([1, 2], [2.0, 4], [0.5, 0.25])))
    assert diagonal(torch.tensor([2.0, 2.5])).tolist() == [2, 2]
    assert diagonal.invert(torch.tensor([2.0, 2])).tolist() == [2, 2.5]
    # (x, y) -> (2 y, x)
    matrix = torch.tensor([[0.0, 2], [1, 0]])
    swap = AffineMap(torch.ones(2), matrix, torch.linalg.inv(matrix))
    assert swap(torch.tensor([4.0, 3])).tolist() == [4, 3]
    assert swap.invert(torch.tensor([4.0, 3])).tolist() == [4, 3]
    assert swap(torch.tensor([[2.0, 2], [1, 2]])).tolist() == [[2, 1], [2, 0]]


@pytest.mark.parametrize('dense', [False, True])
def test_a_folded_layer_gives_the_inverse_of_what_it_gave(dense):
    affine = make_affine(dense)
    linear = nn.Linear(7, 5)
    folded = copy.deepcopy(linear)
    affine.fold_into(folded)
    x = torch.randn(3, 4, 7)
    torch.testing.assert_close(folded(x), affine.invert(linear(x)), rtol=1e-5, atol=1e-5)
    assert folded.weight.requires_grad
