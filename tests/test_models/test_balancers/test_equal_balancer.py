import torch

from kpu_mm.models.balancers import EqualBalancer


def test_mean_over_teachers_of_means_over_images():
    balancer = EqualBalancer(['a', 'b'])
    losses = dict(a=torch.tensor([1.0, 3.0]), b=torch.tensor([6.0]))
    assert balancer(losses).item() == 4.0  # (2 + 6) / 2
    parts = [balancer({k: v}).item() for k, v in losses.items()]
    assert parts == [1.0, 3.0]
