from __future__ import annotations

import torch

from projects.micro_lab.prototypes import find_prototypes


def test_heaps_far_apart_are_the_groups():
    torch.manual_seed(1)
    heap = torch.arange(4).repeat_interleave(25)[torch.randperm(100)]
    corners = 10 * torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    scans = corners[heap] + 0.3 * torch.randn(100, 2)
    groups = find_prototypes(scans, 12)
    assert torch.equal(groups, find_prototypes(scans, 12))
    assert set(groups.tolist()) <= set(range(12))
    # no group lies in two heaps
    for group in groups.unique():
        assert len(heap[groups == group].unique()) == 1


def test_every_scan_is_with_the_mean_nearest_to_it():
    scans = torch.randn(60, 3, generator=torch.Generator().manual_seed(2))
    groups = find_prototypes(scans, 5, seed=3)
    means = torch.stack([scans[groups == g].mean(0) for g in range(5)])
    assert torch.equal(torch.cdist(scans, means).argmin(1), groups)
