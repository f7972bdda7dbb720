import pytest
import torch

from kpu_mm.models.mask_dino.matcher import HungarianMatcher, TermWeights, match_costs
from kpu_mm.models.mask_dino.predictor import Predictions
from kpu_mm.models.mask_dino.targets import Target
from tests.mask_dino_pair import random_targets, rendered
from tests.references.mask_dino.matcher import cost_matrix, match

CLASSES, DIMS = 7, 16


def random_set(batch, queries, spread=1.0):
    boxes = torch.rand(batch, queries, 4) * 0.4 + 0.05
    return Predictions(
        torch.randn(batch, queries, CLASSES) * spread, boxes, torch.randn(batch, queries, DIMS)
    )


@pytest.mark.parametrize('spread', [1.0, 20.0])
def test_costs(spread):
    sets, features = random_set(3, 11, spread), torch.randn(DIMS, 16, 24)
    (target,) = random_targets((5,), canvas=(64, 96))
    points = torch.rand(3, 200, 2)
    ours = match_costs(sets, features, Target(*target), points, TermWeights())
    masks = rendered(sets, features.expand(3, -1, -1, -1))
    for i in range(3):
        wanted = cost_matrix(*(part[i] for part in masks), target, points[i])
        torch.testing.assert_close(ours[i], wanted, rtol=1e-5, atol=1e-5)


# fewer, no and more objects than queries
@pytest.mark.parametrize('counts', [(3, 7), (0, 5), (0, 0), (15, 2)])
def test_assignment(counts):
    queries = 11
    sets = [random_set(2, queries) for _ in range(3)]
    features = torch.randn(2, DIMS, 16, 24)
    targets = random_targets(counts, canvas=(64, 96))
    points = torch.rand(3, 2, 150, 2)
    matched = HungarianMatcher(TermWeights(), 150)(
        sets, features, [Target(*t) for t in targets], points
    )
    for one, where, ours in zip(sets, points, matched, strict=True):
        wanted = match(rendered(one, features), targets, where)
        for pairs, expected, count in zip(ours, wanted, counts, strict=True):
            found = zip(pairs.queries.tolist(), pairs.objects.tolist(), strict=True)
            assert sorted(found) == sorted(expected)
            assert len(expected) == min(count, queries)


def test_points_are_drawn_for_each_set_and_image(monkeypatch):
    sets, features = [random_set(2, 4)] * 3, torch.randn(2, DIMS, 16, 24)
    targets = [Target(*t) for t in random_targets((2, 1), canvas=(64, 96))]
    shapes, rand = [], torch.rand
    monkeypatch.setattr(
        torch,
        'rand',
        lambda *shape, **kwargs: shapes.append(tuple(shape[0])) or rand(*shape, **kwargs),
    )
    HungarianMatcher(TermWeights())(sets, features, targets)
    assert shapes == [(3, 2, 12544, 2)]
