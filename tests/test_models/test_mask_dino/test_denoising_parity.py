import pytest
import torch

from kpu_mm.models.mask_dino.denoising import Denoising
from kpu_mm.models.mask_dino.targets import Target
from tests.mask_dino_pair import as_ours, build_pair, random_maps, random_noises, random_targets
from tests.references.mask_dino.denoising import denoise

CLASSES, QUERIES = 7, 12


@pytest.mark.parametrize(
    ('counts', 'groups'), [((3, 7), 14), ((0, 5), 20), ((100,), 1), ((1, 1), 100), ((51, 20), 1)]
)
def test_queries_slots_and_mask(counts, groups):
    denoising = Denoising(CLASSES, 32)
    targets = random_targets(counts, canvas=(32, 48))
    noises = random_noises(targets)
    wanted = denoise(targets, noises, denoising.label_embedding, QUERIES)
    ours_targets, noise = as_ours(targets, noises)
    ours = denoising(ours_targets, QUERIES, noise)

    assert ours.groups == wanted.groups == groups
    assert ours.content.shape[1] == groups * max(counts) <= 100
    assert torch.equal(ours.content, wanted.content)
    torch.testing.assert_close(ours.references, wanted.logits, rtol=0, atol=1e-5)
    assert torch.equal(ours.blocked, wanted.blocked)
    for pairs, slots in zip(ours.pairs, wanted.slots, strict=True):
        found = zip(pairs.objects.tolist(), pairs.queries.tolist(), strict=True)
        assert sorted(found) == sorted(slots)


@pytest.mark.parametrize('counts', [(101,), (0,), (0, 0), (3, 101)])
def test_off(counts):
    targets = random_targets(counts, canvas=(8, 8))
    assert denoise(targets, None, None, QUERIES) is None
    denoising = Denoising(CLASSES, 32)
    ours = denoising([Target(*t) for t in targets], QUERIES)
    assert ours.groups == 0
    assert ours.content.shape == (len(counts), 0, 32)
    assert ours.references.shape == (len(counts), 0, 4)
    assert torch.equal(ours.blocked, torch.zeros(QUERIES, QUERIES, dtype=torch.bool))
    assert all(len(pairs.queries) == 0 for pairs in ours.pairs)
    # distributed training must see the parameter
    ours.content.sum().backward()
    assert denoising.label_embedding.weight.grad.abs().sum() == 0


def test_drawn_noise():
    """Shares and ranges of the numbers that are drawn."""
    denoising = Denoising(CLASSES, 32)
    targets = [Target(*t) for t in random_targets((50, 50), canvas=(8, 8))]
    noise = denoising.draw(targets, 200)
    assert noise.swap.shape == noise.labels.shape == (200, 100)
    assert abs(noise.swap.float().mean() - 0.2) < 0.02
    shares = torch.bincount(noise.labels.flatten(), minlength=CLASSES) / 20000
    torch.testing.assert_close(shares, torch.full((CLASSES,), 1 / CLASSES), rtol=0, atol=0.02)
    assert noise.boxes.abs().max() <= 1
    assert abs(noise.boxes.mean()) < 0.02
    assert abs(noise.boxes.var() - 1 / 3) < 0.02


def test_matching_queries_cannot_see_the_answers():
    pair = build_pair(queries=QUERIES)
    targets = random_targets((3, 5))
    maps = random_maps()
    ours_targets, noise = as_ours(targets, random_noises(targets))
    queries = pair.head.denoising(ours_targets, QUERIES, noise)
    changed = queries._replace(
        content=torch.randn_like(queries.content), references=torch.randn_like(queries.references)
    )
    with torch.no_grad():
        plain, with_other, with_dn = (pair.head(maps, dn) for dn in (None, changed, queries))
    for alone, other, dn in zip(plain.matching, with_other.matching, with_dn.matching, strict=True):
        for x, y, z in zip(alone, other, dn, strict=True):
            torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(x, z, rtol=1e-4, atol=1e-4)
    first, second = with_dn.denoising[-1], with_other.denoising[-1]
    assert (first.logits - second.logits).abs().max() > 1e-2
