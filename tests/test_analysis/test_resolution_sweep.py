import pytest
import torch
from torch.nn.functional import interpolate

from kpu_mm.analysis import Batch, measure_agreement, sweep

MEASURES = ('cosine', 'mse', 'cka')


@pytest.fixture(scope='module')
def batches():
    torch.manual_seed(0)
    images = [torch.rand(1, 3, 12, 14) * 255 for _ in range(5)]
    return {
        size: [
            Batch(interpolate(i, (size, size * 7 // 6), mode='bicubic'), None)
            for i in images
        ]
        for size in (48, 72)
    }


def test_at_each_size_the_agreement_of_that_size(distilled, batches):
    report = sweep(distilled[2], batches, 48)
    for name, outputs in report['teachers'].items():
        for size in batches:
            alone = measure_agreement(distilled[2], name, batches[size])
            for output, sizes in outputs.items():
                for measure in MEASURES:
                    assert sizes[size][measure] == pytest.approx(
                        alone[output][measure], rel=1e-5
                    )


def test_with_itself(distilled, batches):
    model = distilled[2]
    itself = sweep(model, batches, 72)['student']
    assert list(itself) == [
        'summary',
        *(f'stride {4 * 2**i}' for i in range(4)),
    ]
    for sizes in itself.values():
        assert sizes[72]['cosine'] == pytest.approx(1)
        assert sizes[72]['cka'] == pytest.approx(1)
        assert sizes[72]['mse'] == 0
        assert sizes[48]['cosine'] < 1 and sizes[48]['mse'] > 0
    with torch.no_grad():
        small, large = (
            [model.student.encode(b.images) for b in batches[size]]
            for size in (48, 72)
        )
    errors = [
        (
            interpolate(a.maps[2], b.maps[2].shape[-2:], mode='bilinear')
            - b.maps[2]
        )
        .square()
        .mean()
        for a, b in zip(small, large, strict=True)
    ]
    assert itself['stride 16'][48]['mse'] == pytest.approx(
        (sum(errors) / 5).item(), rel=1e-4
    )


def test_unknown_reference(distilled, batches):
    with pytest.raises(ValueError, match=r'reference size 50.*\[48, 72\]'):
        sweep(distilled[2], batches, 50)
