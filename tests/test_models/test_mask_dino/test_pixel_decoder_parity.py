import pytest
import torch

from kpu_mm.models.mask_dino import MaskDINOHead
from tests.mask_dino_pair import CHANNELS, LEVELS, build_pair, head_config, random_maps

CANVAS = (128, 192)
R50 = (256, 512, 1024, 2048)
FULL = dict(channels=R50, dims=256, heads=8, ffn=2048, encoder_depth=6, queries=300, classes=80)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ('layout', 'ffn', 'pixel', 'whole'),
    [('3s', 1024, 6_035_904, 20_361_524), ('4s', 2048, 14_055_424, 28_603_092)],
)
def test_parameter_counts(layout, ffn, pixel, whole):
    config = head_config(layout=layout, encoder_ffn=ffn, **FULL)
    with torch.device('meta'):
        head = MaskDINOHead(**config)
    assert count(head.pixel_decoder) == pixel
    assert count(head) - count(head.pixel_decoder) == whole - pixel


@pytest.mark.parametrize('layout', LEVELS)
def test_outputs_and_level_order(layout):
    pair = build_pair(layout=layout, depth=1)
    maps = random_maps(2, CANVAS)
    seen = []
    pair.head.pixel_decoder.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs['spatial_shapes']), with_kwargs=True
    )
    with torch.no_grad():
        ours = pair.head.pixel_decoder(maps)
        mask_features, memories = pair.reference.pixel_decoder(maps)

    sizes = {s: (CANVAS[0] // s, CANVAS[1] // s) for s in (4, 8, 16, 32, 64)}
    # strides as the decoder gets them; the encoder has them in reverse
    strides = {'3s': (8, 16, 32), '4s': (64, 32, 16, 8), '5s': (64, 32, 16, 8, 4)}[layout]
    assert [tuple(s) for s in ours.shapes] == [sizes[s] for s in strides]
    assert [tuple(s) for s in seen[0].tolist()] == [sizes[s] for s in strides[::-1]]

    torch.testing.assert_close(ours.masks, mask_features, rtol=0, atol=1e-4)
    memory = torch.cat([m.flatten(2).transpose(1, 2) for m in memories[::-1]], 1)
    torch.testing.assert_close(ours.memory, memory, rtol=0, atol=1e-4)


def test_odd_sizes():
    """Strides that do not divide the canvas: 8 -> 4 -> 2 with remainders."""
    pair = build_pair(layout='4s', depth=1)
    sizes = ((30, 45), (15, 23), (8, 12), (4, 6))
    maps = [torch.randn(1, c, *size) for c, size in zip(CHANNELS, sizes, strict=True)]
    with torch.no_grad():
        ours = pair.head.pixel_decoder(maps)
        mask_features, _ = pair.reference.pixel_decoder(maps)
    torch.testing.assert_close(ours.masks, mask_features, rtol=0, atol=1e-4)
