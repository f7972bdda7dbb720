"""Precision of the adapter's layers."""

import pytest
import torch
from torch import nn

from kpu_mm.models.layers.vit_adapter import LayerNorm
from kpu_mm.registry import MODELS


def test_layer_norm_keeps_the_precision():
    torch.manual_seed(0)
    ours, theirs = LayerNorm(8), nn.LayerNorm(8)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        q.data.copy_(p.data.normal_())
    x = 3 * torch.randn(4, 8) + 2
    assert torch.equal(ours(x), theirs(x))
    with torch.autocast('cpu', torch.bfloat16):
        half = ours(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), theirs(x), rtol=0.02, atol=0.05)
    half.float().sum().backward()
    assert ours.weight.grad.dtype == torch.float32


@pytest.mark.parametrize('frozen', ['sentinel', 'none'])
@pytest.mark.parametrize('family', ['dinov2', 'dinov3_vit'])
def test_under_autocast(frozen, family):
    torch.manual_seed(0)
    sentinel = dict(
        model_type=family,
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
    )
    student = MODELS.build(
        dict(type='kpu_mm.KPUBackbone', sentinel=sentinel, inplanes=8, frozen=frozen)
    )
    for block in student.interactions:
        block.injector.gamma.data.fill_(0.5)
    images = torch.randn(2, 3, 64, 96)
    exact = student.extract(images)
    with torch.autocast('cpu', torch.bfloat16):
        fast = student.extract(images)
    for a, b in zip(exact.maps, fast.maps, strict=True):
        # a trained ViT's own tokens are in float32
        assert b.dtype == (torch.bfloat16 if frozen == 'sentinel' else torch.float32)
        assert (a - b).norm() < 0.05 * a.norm()
    sum(m.float().square().mean() for m in fast.maps).backward()
    grads = [p.grad for p in student.parameters() if p.grad is not None]
    assert grads and all(g.dtype == torch.float32 and g.isfinite().all() for g in grads)
