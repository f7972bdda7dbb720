from __future__ import annotations

import pytest
import torch

from kpu_mm.models import KPUBackbone
from kpu_mm.models.teachers import DINOTeacher
from projects.micro_lab.micro_sentinel import (
    POSITION_CHANNELS,
    SentinelNet,
    build_sentinel,
    export_sentinel,
    find_prototypes,
    neighbour_heads_,
    patch_ink,
    position_table,
    spread_patches_,
)

# fp16 keeps 11 bits, of which a dozen layers lose a few
CLOSE = dict(rtol=0.0, atol=0.03)
STEPS = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]


@pytest.mark.parametrize('size', [16, 24])
def test_each_head_finds_its_neighbour(size):
    torch.manual_seed(0)
    heads, side = 8, 8
    width = heads * size
    query, key = torch.empty(2, width, width)
    neighbour_heads_(query, key, heads)
    tokens = position_table(side, side, width)
    q, k = ((tokens @ weight.T).unflatten(1, (heads, size)) for weight in (query, key))
    weights = torch.einsum('ihc,jhc->hij', q, k) / size**0.5
    found = weights.argmax(2)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing='ij')
    for head, (down, right) in enumerate(STEPS):
        row, column = (rows + down).flatten(), (columns + right).flatten()
        # Patches at the edge lack some neighbours.
        inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
        wanted = row * side + column
        assert torch.equal(found[head][inside], wanted[inside])


def test_patches_keep_out_of_the_positions():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.ones(64, 3, 8, 8))
    spread_patches_(weight)
    assert not weight[:POSITION_CHANNELS].any()
    images = torch.randn(50, 3, 8, 8)
    out = torch.nn.functional.conv2d(images, weight)[:, POSITION_CHANNELS:]
    assert out.std().item() == pytest.approx(1, abs=0.05)
    table = position_table(3, 4, 64)
    assert table.shape == (12, 64)
    assert not table[:, POSITION_CHANNELS:].any()
    assert len(table.unique(dim=0)) == 12


def test_heaps_far_apart_are_the_groups():
    torch.manual_seed(1)
    heap = torch.arange(4).repeat_interleave(25)[torch.randperm(100)]
    corners = 10 * torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    scans = corners[heap] + 0.3 * torch.randn(100, 2)
    groups = find_prototypes(scans, 12)
    assert torch.equal(groups, find_prototypes(scans, 12))
    assert set(groups.tolist()) <= set(range(12))
    # No group lies in two heaps.
    for group in groups.unique():
        assert len(heap[groups == group].unique()) == 1


def test_every_scan_is_with_the_mean_nearest_to_it():
    scans = torch.randn(60, 3, generator=torch.Generator().manual_seed(2))
    groups = find_prototypes(scans, 5, seed=3)
    means = torch.stack([scans[groups == g].mean(0) for g in range(5)])
    assert torch.equal(torch.cdist(scans, means).argmin(1), groups)


def test_ink_by_hand(scenes):
    instances = torch.zeros_like(scenes.instances[:1])
    instances[0, 9, 18] = 2  # row 1, column 2 of the patch below and right
    ink = patch_ink(scenes._replace(instances=instances))
    assert ink.shape == (1, 64, 64)
    assert ink.nonzero().tolist() == [[0, 10, 10]]
    assert ink.max() == 1
    everything = patch_ink(scenes._replace(instances=instances + 1))
    assert (everything == 1).all()


def test_no_class_of_a_digit_takes_part(scenes):
    torch.manual_seed(0)
    net = SentinelNet(build_sentinel())
    # The net has the scans of the training split, so use their indices.
    known = scenes._replace(scans=scenes.scans.clamp(max=300))

    def losses(scenes):
        torch.manual_seed(1)
        return {name: loss.item() for name, loss in net(scenes).items()}

    other = known._replace(digits=torch.randint(10, known.digits.shape))
    assert losses(other) == losses(known)
    moved = known._replace(scans=known.scans.flip(0))
    assert losses(moved)['dominant_alike'] != losses(known)['dominant_alike']


def test_every_parameter_of_the_vit_learns(scenes):
    torch.manual_seed(0)
    net = SentinelNet(build_sentinel())
    scenes = scenes._replace(scans=scenes.scans.clamp(max=300))
    torch.stack(list(net(scenes).values())).sum().backward()
    still = {name for name, p in net.model.named_parameters() if p.grad is None or not p.grad.any()}
    # Softmax is invariant to a shift of all keys.
    assert {n for n in still if not n.endswith('key.bias')} == {'embeddings.mask_token'}


def test_exported_sentinel_gives_equal_features(tmp_path, scenes):
    images = scenes.images[:3]
    torch.manual_seed(0)
    net = SentinelNet(build_sentinel()).eval()
    export_sentinel(net.model, tmp_path)
    with torch.no_grad():
        summary, patches = net.features(images)
    found = DINOTeacher(str(tmp_path))(images.permute(0, 3, 1, 2))
    torch.testing.assert_close(found.summary, summary, **CLOSE)
    torch.testing.assert_close(found.maps[0], patches, **CLOSE)
    backbone = KPUBackbone(sentinel=str(tmp_path), inplanes=8)
    assert backbone.embed_dims == patches.shape[1]
