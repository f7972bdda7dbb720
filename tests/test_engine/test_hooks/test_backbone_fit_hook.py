from types import SimpleNamespace

import pytest
from mmseg.models import FCNHead, UPerHead
from torch import nn

from kpu_mm.engine import BackboneFitHook


def check(given, **parts):
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.out_channels = given
    for name, part in parts.items():
        setattr(model, name, part)
    BackboneFitHook().before_run(SimpleNamespace(model=model))


def uper_head(channels, index):
    return UPerHead(
        in_channels=channels, in_index=index, channels=4, num_classes=2
    )


def neck(channels):
    module = nn.Module()
    module.in_channels = channels
    return module


def test_segmentation_heads():
    head = uper_head([8] * 4, [0, 1, 2, 3])
    check((8, 8, 8, 8), decode_head=head)
    with pytest.raises(ValueError, match=r'takes map 3 .* gives 3 maps'):
        check((8, 8, 8), decode_head=head)
    with pytest.raises(ValueError, match=r'decode_head takes 4 maps of'):
        check((8, 8, 9, 8), decode_head=head)
    joined = FCNHead(
        in_channels=[8, 8],
        in_index=[0, 1],
        input_transform='resize_concat',
        channels=4,
        num_classes=2,
    )
    check((8, 8), decode_head=joined)
    aside = FCNHead(in_channels=8, in_index=2, channels=4, num_classes=2)
    check((9, 9, 8), auxiliary_head=aside)
    with pytest.raises(ValueError, match='auxiliary_head takes map 2'):
        check((8, 8), auxiliary_head=aside)


def test_necks_and_classification_heads():
    # a head after a neck sees the neck's maps
    check((8, 8), neck=neck([8, 8]), head=neck(3))
    with pytest.raises(ValueError, match=r'neck takes 4 maps'):
        check((8, 8), neck=neck([8] * 4))
    check((9, 8), head=neck(8))
    with pytest.raises(ValueError, match=r'head takes 1 maps of \[8\]'):
        check((16,), head=neck(8))


def test_backbones_that_do_not_say():
    model = nn.Module()
    model.backbone = nn.Module()
    BackboneFitHook().before_run(SimpleNamespace(model=model))
