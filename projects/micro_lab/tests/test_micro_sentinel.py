from __future__ import annotations

import torch

from projects.micro_lab.micro_sentinel import (
    SentinelNet,
    build_sentinel,
    patch_ink,
)


def test_ink_by_hand(batch):
    instances = torch.zeros_like(batch.instances[:1])
    instances[0, 9, 18] = 2  # row 1, column 2 of the patch below and right
    ink = patch_ink(batch._replace(instances=instances))
    assert ink.shape == (1, 64, 64)
    assert ink.nonzero().tolist() == [[0, 10, 10]]
    assert ink.max() == 1
    everything = patch_ink(batch._replace(instances=instances + 1))
    assert (everything == 1).all()


def test_no_class_of_a_digit_takes_part(batch):
    torch.manual_seed(0)
    net = SentinelNet(build_sentinel())
    # scans of the training split stand in for those of the test split
    known = batch._replace(scans=batch.scans.clamp(max=300))

    def losses(scenes):
        torch.manual_seed(1)
        return {name: loss.item() for name, loss in net(scenes).items()}

    other = known._replace(digits=torch.randint(10, known.digits.shape))
    assert losses(other) == losses(known)
    moved = known._replace(scans=known.scans.flip(0))
    assert losses(moved)['dominant_alike'] != losses(known)['dominant_alike']


def test_every_parameter_of_the_vit_learns(batch):
    torch.manual_seed(0)
    net = SentinelNet(build_sentinel())
    scenes = batch._replace(scans=batch.scans.clamp(max=300))
    torch.stack(list(net(scenes).values())).sum().backward()
    still = {
        name
        for name, p in net.model.named_parameters()
        if p.grad is None or not p.grad.any()
    }
    # softmax takes no notice of a shift of all keys
    assert {n for n in still if not n.endswith('key.bias')} == {
        'embeddings.mask_token'
    }
