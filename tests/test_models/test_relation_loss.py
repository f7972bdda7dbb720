from itertools import product
from statistics import mean, median_low

import pytest
import torch
from torch import nn

from kpu_mm.models import KPUDistiller
from kpu_mm.models.balancers import EqualBalancer
from kpu_mm.models.losses import AlignLoss
from kpu_mm.models.relation_loss import RelationLoss, asymmetric_relation
from kpu_mm.structures import Features
from tests.two_processes import run_in_two


def by_hand(student, teacher, beta=1.0):
    """The mean over all pairs, in plain Python; differentiable in the student."""
    n = len(student)
    pairs = [(i, j) for i, j in product(range(n), repeat=2) if i != j]

    def distances(x):
        return {(i, j): (x[i] - x[j]).square().sum().sqrt() for i, j in pairs}

    d_s, d_t = distances(student), distances(teacher)
    mean_s, mean_t = (mean(float(v) for v in d.values()) for d in (d_s, d_t))
    d_s = {k: v / mean_s for k, v in d_s.items()}
    d_t = {k: float(v) / mean_t for k, v in d_t.items()}
    middle = median_low(d_t.values())
    total = 0
    for k in pairs:
        error = d_s[k] - d_t[k] if d_t[k] < middle else d_t[k] - d_s[k]
        if error > 0:
            total = total + (error**2 / 2 / beta if error < beta else error - beta / 2)
    return total / len(pairs)


@pytest.fixture
def vectors():
    torch.manual_seed(0)
    return torch.randn(7, 5, dtype=torch.float64), torch.randn(7, 9, dtype=torch.float64)


@pytest.mark.parametrize('beta', [1.0, 0.1])
def test_value_and_gradient_are_those_of_all_pairs(vectors, beta):
    student, teacher = vectors
    ours, theirs = (student.clone().requires_grad_() for _ in range(2))
    values = asymmetric_relation(ours, teacher, beta)
    assert values.shape == (7,)
    values.mean().backward()
    expected = by_hand(theirs, teacher, beta)
    expected.backward()
    torch.testing.assert_close(values.mean(), expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_three_images_on_a_line():
    # teacher: distances 1, 3 and 4, mean 8/3, median 3: only the first pair is near
    teacher = torch.tensor([[0.0], [1.0], [4.0]])
    # student: distances 2, 2 and 4, mean 8/3: too far, too near, right
    student = torch.tensor([[0.0], [2.0], [4.0]])
    error = (3 / 8) ** 2 / 2
    expected = torch.tensor([error / 2, 2 * error / 2, error / 2])
    torch.testing.assert_close(asymmetric_relation(student, teacher), expected)
    # near pairs that are nearer, and far ones that are farther, cost nothing
    eager = torch.tensor([[0.0], [0.5], [4.0]])
    d = torch.tensor([0.5, 3.5, 4.0]) / (8 / 3)
    assert (d[0] < 3 / 8) and (d[1] > 9 / 8)
    assert not asymmetric_relation(eager, teacher).any()


def test_scale_and_rotation_do_not_matter(vectors):
    _, teacher = vectors
    rotation = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64))[0]
    assert float(asymmetric_relation(3 * teacher @ rotation, teacher).max()) < 1e-12


def test_equal_summaries_and_single_images_give_numbers():
    same = torch.ones(3, 4, requires_grad=True)
    loss = asymmetric_relation(same, torch.randn(3, 4)) + asymmetric_relation(same, same.detach())
    loss.sum().backward()
    assert loss.isfinite().all() and same.grad.isfinite().all()
    one = torch.randn(1, 4, requires_grad=True)
    asymmetric_relation(one, torch.randn(1, 4)).sum().backward()
    assert not one.grad.any()


def test_images_that_count_the_same_need_one_stream():
    with pytest.raises(ValueError, match='per_image=True needs one stream for each teacher'):
        EqualBalancer(['a', 'b'], dict(a=('low', 'high'), b=('low',)), per_image=True)


def test_processes_with_batches_of_different_sizes_are_one(vectors, tmp_path):
    """With each image counting the same, as DDP averages gradients."""
    student, teacher = vectors
    torch.manual_seed(1)
    layer = nn.Linear(5, 6).double()

    def run(rank):
        own = slice(0, 5) if rank == 0 else slice(5, 7)
        balancer = EqualBalancer(['a'], per_image=True)
        values = asymmetric_relation(layer(student[own]), teacher[own])
        loss, _ = balancer(dict(a=values))
        loss.backward()
        return dict(values=values.detach(), loss=loss.detach(), grad=layer.weight.grad)

    first, second = run_in_two(run, tmp_path)
    values = asymmetric_relation(layer(student), teacher)
    values.mean().backward()
    torch.testing.assert_close(torch.cat([first['values'], second['values']]), values.detach())
    torch.testing.assert_close((first['loss'] + second['loss']) / 2, values.mean().detach())
    torch.testing.assert_close((first['grad'] + second['grad']) / 2, layer.weight.grad)


def test_is_added_to_l_align():
    torch.manual_seed(0)
    x, y = torch.randn(2, 4, 8)
    v, w = torch.randn(2, 4, 8, 2, 2)
    align = dict(type='kpu_mm.AlignLoss', summary=0, cosine=0, smooth_l1=0, mse=1, summary_mse=1)
    loss = RelationLoss(align, relation=0.5)
    first, second = Features(x, (v,)), Features(y, (w,))
    squares = (x - y).square().mean(1) + (v - w).square().mean((1, 2, 3))
    expected = squares + 0.5 * asymmetric_relation(x, y)
    torch.testing.assert_close(loss(first, second), expected)
    alone = second._replace(summary=None)
    assert torch.equal(loss(first, alone), AlignLoss(0, 0, 0, mse=1)(first, alone))


def test_for_s2t_alone(dinov2_dir):
    config = dict(type='kpu_mm.RelationLoss', align=dict(type='kpu_mm.AlignLoss'))
    with pytest.raises(ValueError, match=r"for the terms \['s2t'\] alone"):
        KPUDistiller(
            student=dict(type='kpu_mm.ViTBackbone', sentinel=str(dinov2_dir)),
            teachers=dict(dino=dict(type='kpu_mm.DINOTeacher', source=str(dinov2_dir))),
            align=config,
        )
