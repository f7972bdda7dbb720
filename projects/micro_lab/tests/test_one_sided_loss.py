import torch

from kpu_mm.models.losses import AlignLoss
from kpu_mm.structures import Features
from projects.micro_lab.one_sided_loss import OneSidedAlignLoss


def features(trained):
    summary, m = torch.randn(2, 5), torch.randn(2, 3, 4, 4)
    return Features(summary.requires_grad_(trained), (m.requires_grad_(trained),))


def test_only_what_comes_first_is_moved():
    loss, two_sided = OneSidedAlignLoss(), AlignLoss()
    student, unified, teacher = features(True), features(True), features(False)
    value = loss(student, unified)
    assert torch.equal(value, two_sided(student, unified))
    value.sum().backward()
    # t2s: the student learns, and h_t2s does not
    assert unified.summary.grad is unified.maps[0].grad is None
    own = [student.summary.grad.clone(), student.maps[0].grad.clone()]
    student.summary.grad = student.maps[0].grad = None
    two_sided(student, unified).sum().backward()
    for one, other in zip(own, (student.summary.grad, student.maps[0].grad), strict=True):
        assert torch.equal(one, other)
    # rec: the first is a frozen teacher's
    again = features(True)
    loss(teacher, again).sum().backward()
    assert again.maps[0].grad.abs().sum() > 0
