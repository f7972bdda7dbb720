import pytest
import torch
from torch.nn.functional import interpolate

from kpu_mm.analysis import Agreement, Batch, measure_agreement
from kpu_mm.analysis.agreement import names_of
from kpu_mm.evaluation.functional import unbiased_linear_cka
from kpu_mm.models.losses import AlignLoss
from kpu_mm.structures import Features


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
        (a - b)[:, m[0]].square().mean()
        for a, b, m in zip(first, second, mask, strict=True)
    ]
    assert result['mse'] == pytest.approx(
        (sum(per_image) / 3).item(), rel=1e-5
    )


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
        values = [
            (
                student.summary,
                project.summary(student.summary),
                teacher.summary,
            )
        ]
        for mlp, (i, level) in zip(
            project.maps, link.levels.pairs, strict=True
        ):
            valid = torch.ones(len(images), *images.shape[2:])
            valid = valid if mask is None else mask.float()
            size = teacher.maps[i].shape[-2:]
            m = student.maps[level]
            cells = interpolate(valid[:, None], m.shape[-2:])
            kept = interpolate(cells, size, mode='bilinear')[:, 0] > 0.999
            if teacher.masks is not None:
                kept = kept & teacher.masks[i][:, 0]
            m = interpolate(m, size, mode='bilinear').movedim(1, -1)
            values.append(
                (m[kept], mlp(m)[kept], teacher.maps[i].movedim(1, -1)[kept])
            )
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
