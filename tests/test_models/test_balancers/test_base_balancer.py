import torch

from kpu_mm.models.balancers import EqualBalancer


def test_mean_over_teachers_of_means_over_images():
    balancer = EqualBalancer(['a', 'b'])
    losses = dict(a=torch.tensor([1.0, 3.0]), b=torch.tensor([6.0]))
    loss, weights = balancer(losses)
    assert loss.item() == 4.0  # (2 + 6) / 2
    assert weights == dict(a=0.5, b=0.5)
    parts = [balancer({k: v}).loss.item() for k, v in losses.items()]
    assert parts == [1.0, 3.0]
