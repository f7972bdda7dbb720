import math

import pytest
import torch

from kpu_mm.models.normalizers import MovingNormalizer, StandardNormalizer
from kpu_mm.structures import Features
from tests.two_processes import run_in_two

CHANNELS = (12, 6)


def build(**kwargs):
    return MovingNormalizer(8, CHANNELS, **dict(dict(updates=10), **kwargs))


def batch(seed):
    """A summary and two maps far from zero, one with padding."""
    torch.manual_seed(seed)
    maps = tuple(30 + seed + (1 + seed) * torch.randn(4, c, 5, 6) for c in CHANNELS)
    masks = tuple(torch.ones(4, 1, 5, 6, dtype=torch.bool) for _ in CHANNELS)
    masks[1][2:, :, :, 4:] = False
    maps[1][2:, :, :, 4:] = math.inf  # padding may hold anything
    return Features(5 * torch.randn(4, 8) - seed, maps, masks)


def vectors(features):
    """Vectors of each output, without padding, by a loop over cells."""
    yield features.summary
    for m, mask in zip(features.maps, features.masks, strict=True):
        cells = [(b, i, j) for b in range(4) for i in range(5) for j in range(6)]
        yield torch.stack([m[b, :, i, j] for b, i, j in cells if mask[b, 0, i, j]])


def averages(normalizer):
    return [normalizer.summary, *normalizer.maps]


def cosine(step, updates, first=1.0, last=0.001):
    share = min(step / updates, 1)
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * share))


def assert_all_close(found, expected, tolerance=1e-5):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_targets_by_the_batch_as_dune():
    normalizer = build()
    features = batch(3)
    found = vectors(normalizer(features))
    expected = [(v - v.mean(0)) / v.std(0) for v in vectors(features)]
    assert_all_close(found, expected, 1e-4)


def test_targets_by_the_averages_before_as_unic():
    normalizer = build(by='average')
    first, second = batch(1), batch(2)
    assert_all_close(vectors(normalizer(first)), vectors(first), 0)  # nothing seen yet
    # the first share is 1
    seen = [(v.mean(0), v.std(0)) for v in vectors(first)]
    expected = [(v - m) / s for v, (m, s) in zip(vectors(second), seen, strict=True)]
    assert_all_close(vectors(normalizer(second)), expected, 1e-4)


def test_averages_follow_the_cosine():
    normalizer = build(updates=4)
    expected = [(torch.zeros(c), torch.ones(c)) for c in (8, *CHANNELS)]
    for step in range(7):
        features = batch(step)
        normalizer(features)
        share = cosine(step, 4)
        expected = [
            ((1 - share) * mean + share * v.mean(0), (1 - share) * std + share * v.std(0))
            for (mean, std), v in zip(expected, vectors(features), strict=True)
        ]
    own = averages(normalizer)
    assert_all_close([a.mean for a in own], [mean for mean, _ in expected])
    assert_all_close([a.inverse for a in own], [std for _, std in expected])
    # in eval mode they normalise, stay, and are inverted
    normalizer.eval()
    before = {k: v.clone() for k, v in normalizer.state_dict().items()}
    there = normalizer(features)
    given = [(v - m) / s for v, (m, s) in zip(vectors(features), expected, strict=True)]
    assert_all_close(vectors(there), given, 1e-4)
    assert_all_close(vectors(normalizer.invert(there)), vectors(features), 1e-3)
    assert all(torch.equal(v, before[k]) for k, v in normalizer.state_dict().items())


def test_goes_on_from_its_state():
    whole, part, resumed = build(), build(), build()
    for seed in range(4):
        expected = whole(batch(seed))
    for seed in range(2):
        part(batch(seed))
    resumed.load_state_dict(part.state_dict())
    for seed in range(2, 4):
        found = resumed(batch(seed))
    assert all(map(torch.equal, vectors(found), vectors(expected)))
    states = whole.state_dict(), resumed.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_two_processes_are_one(tmp_path):
    def half(features, rank):
        own = slice(2 * rank, 2 * rank + 2)
        return Features(
            features.summary[own],
            tuple(m[own] for m in features.maps),
            tuple(m[own] for m in features.masks),
        )

    def run(rank):
        normalizer = build()
        for seed in range(3):
            out = normalizer(half(batch(seed), rank))
        return dict(state=normalizer.state_dict(), summary=out.summary, maps=out.maps)

    first, second = run_in_two(run, tmp_path)
    one = build()
    for seed in range(3):
        expected = one(batch(seed))
    for key, value in one.state_dict().items():
        assert torch.equal(first['state'][key], second['state'][key]), key
        torch.testing.assert_close(first['state'][key], value, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(torch.cat([first['summary'], second['summary']]), expected.summary)


def test_a_constant_channel_is_divided_by_eps():
    normalizer = MovingNormalizer(None, (2,), updates=5, eps=0.5)
    m = torch.stack([torch.full((3, 3), 7.0), torch.arange(9.0).view(3, 3)])[None]
    out = normalizer(Features(None, (m,))).maps[0]
    assert not out[0, 0].any()
    assert normalizer.maps[0].inverse[0] == 0.5


def test_fit_sets_the_averages(features, moments_of):
    moving, fixed = build().eval(), StandardNormalizer(8, CHANNELS)
    assert moving.fitted  # needs no images before training
    for normalizer in (moving, fixed):
        normalizer.fit(moments_of(features))
    for (_, a, _), (_, b, _) in zip(
        moving(features).outputs(), fixed(features).outputs(), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(by='epoch'), "choose 'batch' or 'average'"),
        (dict(updates=0), 'one batch at least'),
        (dict(momentum=(0.1, 0.5)), 'two falling shares'),
        (dict(eps=0.0), 'a positive eps'),
    ],
)
def test_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        build(**wrong)
