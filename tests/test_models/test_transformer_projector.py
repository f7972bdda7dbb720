import pytest
import torch
from torch import nn

from kpu_mm.models.transformer_projector import TransformerProjector
from kpu_mm.structures import Features


def reference(block):
    """torch's own encoder layer with the weights of a block without LayerScale."""
    layer = nn.TransformerEncoderLayer(
        12, 3, 48, 0.0, 'gelu', layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    pairs = [
        (layer.self_attn.in_proj_weight, block.attn.qkv.weight),
        (layer.self_attn.in_proj_bias, block.attn.qkv.bias),
        (layer.self_attn.out_proj.weight, block.attn.proj.weight),
        (layer.self_attn.out_proj.bias, block.attn.proj.bias),
        (layer.linear1.weight, block.mlp.fc1.weight),
        (layer.linear1.bias, block.mlp.fc1.bias),
        (layer.linear2.weight, block.mlp.fc2.weight),
        (layer.linear2.bias, block.mlp.fc2.bias),
        (layer.norm1.weight, block.norm1.weight),
        (layer.norm1.bias, block.norm1.bias),
        (layer.norm2.weight, block.norm2.weight),
        (layer.norm2.bias, block.norm2.bias),
    ]
    for theirs, ours in pairs:
        theirs.data.copy_(ours)
    return layer


@pytest.fixture
def features():
    torch.manual_seed(0)
    return Features(torch.randn(2, 12), (torch.randn(2, 12, 3, 4),))


def build(in_summary=12, out_summary=20, out_channels=20, blocks=2):
    torch.manual_seed(1)
    projector = TransformerProjector(
        in_summary, out_summary, [12], [out_channels], num_blocks=blocks, num_heads=3
    )
    for name, p in projector.named_parameters():
        p.data.normal_(std=0.3)
        if name.endswith('gamma'):
            p.data.fill_(1.0)
    return projector


@torch.no_grad()
@pytest.mark.parametrize('padded', [False, True])
def test_equals_torchs_encoder_layers(features, padded):
    projector = build()
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    if padded:
        valid[1, :, 2:] = False
        features = features._replace(masks=(valid[:, None],))
    out = projector(features)
    # summary first, then the map row by row: (2, 12), (2, 12, 3, 4) -> (2, 13, 12)
    rows = [features.maps[0][:, :, i, j] for i in range(3) for j in range(4)]
    tokens = torch.stack([features.summary, *rows], 1)
    hidden = torch.cat([torch.zeros(2, 1, dtype=torch.bool), ~valid.flatten(1)], 1)
    for block in projector.maps[0].blocks:
        tokens = reference(block).eval()(tokens, src_key_padding_mask=hidden)
    expected = tokens @ projector.maps[0].linear.weight.T + projector.maps[0].linear.bias
    torch.testing.assert_close(out.summary, expected[:, 0], rtol=1e-4, atol=1e-4)
    for k, (i, j) in enumerate((i, j) for i in range(3) for j in range(4)):
        here = valid[:, i, j]
        torch.testing.assert_close(
            out.maps[0][here, :, i, j], expected[here, 1 + k], rtol=1e-4, atol=1e-4
        )
    assert out.masks is features.masks


def test_starts_as_a_linear_layer(features):
    """By LayerScale; the summary shares the map's linear layer."""
    projector = TransformerProjector(12, 20, [12], [20], num_heads=3, init_values=1e-9)
    projector.maps[0].linear.bias.data.normal_()
    out, linear = projector(features), projector.maps[0].linear
    torch.testing.assert_close(out.summary, linear(features.summary))
    torch.testing.assert_close(out.maps[0][0, :, 1, 2], linear(features.maps[0][0, :, 1, 2]))


def test_a_summary_of_another_width_has_a_layer_of_its_own(features):
    out = build(out_summary=7)(features)
    assert (out.summary.shape, out.maps[0].shape) == ((2, 7), (2, 20, 3, 4))
    assert build(out_summary=7).out_summary == 7


@torch.no_grad()
def test_the_summary_takes_part_for_a_teacher_without_one(features):
    projector = build(in_summary=None, out_summary=None)
    out = projector(features)
    assert out.summary is None
    assert projector.out_summary is None
    changed = projector(features._replace(summary=features.summary + 1))
    assert not torch.allclose(out.maps[0], changed.maps[0])
    alone = projector(features._replace(summary=None))
    assert alone.maps[0].shape == out.maps[0].shape


def test_of_several_maps_the_first_gives_the_summary(features):
    torch.manual_seed(0)
    projector = TransformerProjector(12, 5, [12, 12], [4, 6], num_heads=3)
    small = torch.randn(2, 12, 1, 2)
    both = features._replace(maps=(features.maps[0], small))
    out = projector(both)
    assert [m.shape for m in out.maps] == [(2, 4, 3, 4), (2, 6, 1, 2)]
    first = projector(features, mlps=(0,))
    assert torch.equal(first.summary, out.summary)
    assert projector(features._replace(maps=(small,)), mlps=(1,)).summary is None
    # DDP refuses parameters without gradient
    (out.summary.sum() + sum(m.sum() for m in out.maps)).backward()
    assert all(p.grad is not None for p in projector.parameters())


def test_an_image_that_is_all_padding_gives_numbers(features):
    masks = (torch.zeros(2, 1, 3, 4, dtype=torch.bool),)
    alone = features._replace(summary=None, masks=masks)
    out = build(in_summary=None, out_summary=None)(alone)
    out.maps[0].sum().backward()
    assert out.maps[0].isfinite().all()


def test_what_does_not_fit():
    with pytest.raises(ValueError, match=r'summary of 8 channels .* \[12\]'):
        TransformerProjector(8, 12, [12], [12], num_heads=3)
    with pytest.raises(ValueError, match='10 channels cannot be split into 3 heads'):
        TransformerProjector(10, 12, [10], [12], num_heads=3)
