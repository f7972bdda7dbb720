import math

import pytest
import torch
from torch.nn.functional import interpolate

from kpu_mm.analysis.agreement import (
    Agreement,
    StreamingCKA,
    measure_agreement,
    names_of,
    unbiased_hsic,
)
from kpu_mm.analysis.batches import Batch
from kpu_mm.models.losses import AlignLoss
from kpu_mm.structures import Features
from tools.analysis_tools.resolution_sweep import sweep


def gram_hsic(x, y):
    """The unbiased HSIC with Gram matrices, as Song et al. write it."""
    n = len(x)
    k, m = (v.double() @ v.double().T for v in (x, y))
    k, m = (g - g.diag().diag() for g in (k, m))
    totals = k.sum() * m.sum() / ((n - 1) * (n - 2))
    rows = 2 / (n - 2) * (k @ m).sum()
    return (torch.trace(k @ m) + totals - rows) / (n * (n - 3))


def unbiased_linear_cka(x, y):
    xy, xx, yy = gram_hsic(x, y), gram_hsic(x, x), gram_hsic(y, y)
    return xy / (xx * yy).sqrt()


def test_cosine_is_that_of_the_loss():
    first, second = torch.randn(3, 8, 5, 6), torch.randn(3, 8, 5, 6)
    mask = torch.rand(3, 1, 5, 6) > 0.3
    agreement = Agreement()
    agreement.add(first[:2], second[:2], mask[:2])
    agreement.add(first[2:], second[2:], mask[2:])
    loss = AlignLoss(cosine=1.0, smooth_l1=0.0)(
        Features(None, (first,), (mask,)), Features(None, (second,), (mask,))
    )
    result = agreement.result()
    assert result['cosine'] == pytest.approx(1 - loss.mean().item(), abs=1e-6)
    per_image = [
        (a - b)[:, m[0]].square().mean() for a, b, m in zip(first, second, mask, strict=True)
    ]
    assert result['mse'] == pytest.approx((sum(per_image) / 3).item(), rel=1e-5)


def test_summaries_by_hand():
    agreement = Agreement()
    first = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    second = torch.tensor([[4.0, 3.0], [0.0, 1.0], [0.0, 2.0], [-1.0, -1.0]])
    agreement.add(first, second)
    result = agreement.result()
    # cosines 24/25, 0, 1, -1; squared errors 1, 1, 0, 4
    assert result['cosine'] == pytest.approx(0.24)
    assert result['mse'] == pytest.approx(1.5)


@pytest.fixture
def batches():
    torch.manual_seed(0)
    mask = torch.ones(3, 56, 84, dtype=torch.bool)
    mask[0, :, 56:] = False
    mask[2, 28:] = False
    return [
        Batch(torch.rand(3, 3, 56, 84) * 255, mask),
        Batch(torch.rand(2, 3, 56, 56) * 255, None),
    ]


def test_against_the_parts(distilled, batches):
    """The second teacher's outputs, put together by hand."""
    _, _, model = distilled
    found = measure_agreement(model, 'other', batches)
    assert list(found) == names_of(model, 'other')
    assert next(iter(found)) == 'summary'
    rows = {o: ([], [], []) for o in found}
    for images, mask in batches:
        with torch.no_grad():
            teacher = model.teachers['other'](images, mask)
            student = model.student.encode(images, mask)
        link = model.links['other']
        project = link.s2t
        values = [(student.summary, project.summary(student.summary), teacher.summary)]
        for mlp, (i, level) in zip(project.maps, link.levels.pairs, strict=True):
            valid = torch.ones(len(images), *images.shape[2:])
            valid = valid if mask is None else mask.float()
            size = teacher.maps[i].shape[-2:]
            m = student.maps[level]
            cells = interpolate(valid[:, None], m.shape[-2:])
            kept = interpolate(cells, size, mode='bilinear')[:, 0] > 0.999
            if teacher.masks is not None:
                kept = kept & teacher.masks[i][:, 0]
            m = interpolate(m, size, mode='bilinear').movedim(1, -1)
            values.append((m[kept], mlp(m)[kept], teacher.maps[i].movedim(1, -1)[kept]))
        for row, features in zip(rows.values(), values, strict=True):
            for parts, feature in zip(row, features, strict=True):
                parts.append(feature.detach())
    for output, parts in rows.items():
        own, guess, target = (torch.cat(p) for p in parts)
        assert found[output]['cka'] == pytest.approx(
            unbiased_linear_cka(guess, target).item(), abs=1e-6
        )
        assert found[output]['cka_student'] == pytest.approx(
            unbiased_linear_cka(own, target).item(), abs=1e-6
        )


def test_a_teacher_that_is_the_sentinel(distilled):
    """`teacher` is the sentinel's own model: CKA 1 with it, but a student
    whose adapter has random weights is something else."""
    torch.manual_seed(0)
    images = torch.rand(8, 3, 56, 56) * 255
    found = measure_agreement(distilled[2], 'teacher', [Batch(images, None)])
    for output in ('summary', 'map 0, 14 → 16'):
        assert found[output]['cka_sentinel'] == pytest.approx(1, abs=1e-6)
        assert found[output]['cka_student'] < 1 - 1e-5


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
    # the values of padding must not matter
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


CLOSE = dict(rtol=1e-9, atol=1e-12)


def random_features(n=23, c=5, d=8):
    x = torch.randn(n, c, dtype=torch.float64) + 3
    # shares some directions with x
    y = x @ torch.randn(c, d, dtype=torch.float64)
    return x, y + torch.randn(n, d, dtype=torch.float64)


def u_statistic(x, y):
    """The mean over ordered tuples of different samples, term by term."""
    kx, ky = x @ x.T, y @ y.T
    n = range(len(x))
    pairs = [kx[i, j] * ky[i, j] for i in n for j in n if i != j]
    triples = [kx[i, j] * ky[i, q] for i in n for j in n for q in n if len({i, j, q}) == 3]
    quadruples = [
        kx[i, j] * ky[q, r] for i in n for j in n for q in n for r in n if len({i, j, q, r}) == 4
    ]
    means = [sum(v) / len(v) for v in (pairs, triples, quadruples)]
    return means[0] - 2 * means[1] + means[2]


def streamed(x, y):
    cka = StreamingCKA()
    cka.add(x, y)
    return cka


def test_unbiased_hsic_is_the_u_statistic():
    x, y = random_features(n=7)
    sums = streamed(x, y).sums
    for found, (a, b) in zip(sums, ((x, y), (x, x), (y, y)), strict=True):
        torch.testing.assert_close(unbiased_hsic(found), u_statistic(a, b), **CLOSE)
        torch.testing.assert_close(gram_hsic(a, b), u_statistic(a, b), **CLOSE)


def test_invariances():
    x, y = random_features()
    value = streamed(x, y).value()
    turn, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))
    turned = streamed(x, -7.3 * y @ turn + 11).value()
    assert turned == pytest.approx(value, rel=1e-9)
    assert streamed(y, x).value() == pytest.approx(value, rel=1e-9)
    assert streamed(x, 0.2 * x + 1).value() == pytest.approx(1, rel=1e-9)
    # a stretch of one direction is no turn
    y[:, 0] *= 10
    assert abs(streamed(x, y).value() - value) > 1e-2


def test_few_samples_of_many_channels():
    """Independent features: only the unbiased value is about 0."""

    def biased(x, y):
        centred = x - x.mean(0), y - y.mean(0)
        return (centred[0].T @ centred[1]).square().sum()

    x, y = torch.randn(50, 400), torch.randn(50, 400)
    assert biased(x, y) / (biased(x, x) * biased(y, y)).sqrt() > 0.8
    values = [streamed(torch.randn(50, 400), torch.randn(50, 400)).value() for _ in range(20)]
    assert abs(sum(values) / 20) < 0.02


def test_constant_features_have_no_alignment():
    assert math.isnan(streamed(torch.ones(5, 2), torch.randn(5, 3)).value())


MEASURES = ('cosine', 'mse', 'cka')


@pytest.fixture(scope='module')
def sized():
    torch.manual_seed(0)
    images = [torch.rand(1, 3, 12, 14) * 255 for _ in range(5)]
    return {
        size: [Batch(interpolate(i, (size, size * 7 // 6), mode='bicubic'), None) for i in images]
        for size in (48, 72)
    }


def test_at_each_size_the_agreement_of_that_size(distilled, sized):
    report = sweep(distilled[2], sized, 48)
    for name, outputs in report['teachers'].items():
        for size in sized:
            alone = measure_agreement(distilled[2], name, sized[size])
            for output, sizes in outputs.items():
                for measure in MEASURES:
                    assert sizes[size][measure] == pytest.approx(alone[output][measure], rel=1e-5)


def test_with_itself(distilled, sized):
    model = distilled[2]
    itself = sweep(model, sized, 72)['student']
    assert list(itself) == ['summary', *(f'stride {4 * 2**i}' for i in range(4))]
    for sizes in itself.values():
        assert sizes[72]['cosine'] == pytest.approx(1)
        assert sizes[72]['cka'] == pytest.approx(1)
        assert sizes[72]['mse'] == 0
        assert sizes[48]['cosine'] < 1 and sizes[48]['mse'] > 0
    with torch.no_grad():
        small, large = ([model.student.encode(b.images) for b in sized[size]] for size in (48, 72))
    errors = [
        (interpolate(a.maps[2], b.maps[2].shape[-2:], mode='bilinear') - b.maps[2]).square().mean()
        for a, b in zip(small, large, strict=True)
    ]
    assert itself['stride 16'][48]['mse'] == pytest.approx((sum(errors) / 5).item(), rel=1e-4)


def test_unknown_reference(distilled, sized):
    with pytest.raises(ValueError, match=r'reference size 50.*\[48, 72\]'):
        sweep(distilled[2], sized, 50)
