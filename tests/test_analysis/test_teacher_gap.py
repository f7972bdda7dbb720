import pytest
import torch

from kpu_mm.analysis import measure_teachers
from kpu_mm.structures import Features

CPU = torch.device('cpu')


def endless(images, mask=None):
    while True:
        yield dict(images=images, mask=mask)


def test_values_and_ratio():
    torch.manual_seed(0)
    images = torch.randn(4, 3, 8, 8)

    def small(images, mask):
        return Features(images.mean((2, 3)), (images, 2 * images))

    def large(images, mask):
        return Features(None, (20 * images + 1,))

    report = measure_teachers(
        dict(small=small, large=large),
        dict(small=endless(images), large=endless(images)),
        8,
        CPU,
    )
    std = images.std(correction=0).item()
    teachers = report['teachers']
    assert list(teachers['small']) == ['summary', 'map 0', 'map 1', 'all maps']
    assert list(teachers['large']) == ['map 0', 'all maps']
    assert teachers['small']['map 1']['std'] == pytest.approx(2 * std)
    mean = 20 * images.mean().item() + 1
    assert teachers['large']['map 0']['mean'] == pytest.approx(mean, rel=1e-4)
    pooled = torch.cat([images, 2 * images]).std(correction=0).item()
    # only one teacher has a summary
    assert report['ratios'] == {'all maps': pytest.approx(20 * std / pooled)}


def test_stops_at_the_number_of_images():
    seen = []

    def extract(images, mask):
        seen.append((len(images), None if mask is None else len(mask)))
        return Features(None, (images,))

    batches = endless(torch.rand(4, 3, 2, 2), torch.ones(4, 2, 2).bool())
    measure_teachers(dict(a=extract), dict(a=batches), 6, CPU)
    assert seen == [(4, 4), (2, 2)]
