"""A small Mask DINO head and its reference with the same random weights."""

from typing import NamedTuple

import torch
from torch import nn

from kpu_mm.models.mask_dino import MaskDINOHead, denoising
from kpu_mm.models.mask_dino import targets as head_targets
from tests.references.mask_dino import MaskDINOReference
from tests.references.mask_dino.denoising import Noise, count_groups
from tests.references.mask_dino.matcher import Target
from tests.references.mask_dino.predictor import Prediction
from tools.model_converters.mask_dino import convert_official

CHANNELS = (8, 12, 16, 20)
# what the reference and the head call the same arrangements of levels
LAYOUTS = {
    '3s': (dict(encoded=3), dict(input_levels=3)),
    '4s': (
        dict(encoded=3, extra=True, order='low2high'),
        dict(input_levels=3, extra_level=True, order='fine_to_coarse'),
    ),
    '5s': (
        dict(encoded=4, extra=True, order='low2high'),
        dict(input_levels=4, extra_level=True, order='fine_to_coarse'),
    ),
}
LEVELS = {'3s': 3, '4s': 4, '5s': 5}


class Pair(NamedTuple):
    reference: MaskDINOReference
    head: MaskDINOHead


def randomise(module):
    for child in module.modules():
        is_norm = isinstance(child, (nn.LayerNorm, nn.GroupNorm))
        for name, parameter in child.named_parameters(recurse=False):
            if is_norm and name == 'weight':
                nn.init.uniform_(parameter, 0.5, 1.5)
            else:
                nn.init.normal_(parameter, std=0.1)


def build_reference(
    layout='4s',
    channels=CHANNELS,
    dims=32,
    heads=4,
    ffn=24,
    encoder_ffn=40,
    encoder_depth=2,
    queries=12,
    classes=7,
    box_init='mask2box',
    depth=9,
    two_stage=True,
):
    size = dict(dims=dims, mask_dims=dims, heads=heads)
    reference = MaskDINOReference(
        dict(channels=channels, depth=encoder_depth, ffn=encoder_ffn, **size, **LAYOUTS[layout][0]),
        dict(
            classes=classes,
            queries=queries,
            levels=LEVELS[layout],
            box_init=box_init,
            depth=depth,
            two_stage=two_stage,
            background=not two_stage,
            ffn=ffn,
            **size,
        ),
    )
    randomise(reference)
    return reference.eval()


def head_config(
    layout='4s',
    channels=CHANNELS,
    dims=32,
    heads=4,
    ffn=24,
    encoder_ffn=40,
    encoder_depth=2,
    queries=12,
    classes=7,
    box_init='mask2box',
    depth=9,
    two_stage=True,
    points=64,
    **test_cfg,
):
    selected = dict(type='kpu_mm.SelectedQueries', num_queries=queries, box_init=box_init)
    learned = dict(type='kpu_mm.LearnedQueries', num_queries=queries)
    kind = 'Focal' if two_stage else 'Softmax'
    return dict(
        num_things_classes=classes,
        pixel_decoder=dict(
            type='kpu_mm.MaskDINOPixelDecoder',
            in_channels=channels,
            embed_dims=dims,
            num_layers=encoder_depth,
            ffn_channels=encoder_ffn,
            num_heads=heads,
            **LAYOUTS[layout][1],
        ),
        queries=selected if two_stage else learned,
        decoder=dict(num_layers=depth, ffn_channels=ffn, num_heads=heads),
        classes=dict(type=f'kpu_mm.{kind}Classes'),
        denoising=dict(),
        train_cfg=dict(num_points=points),
        test_cfg=dict(test_cfg),
    )


def build_pair(**options):
    """Both in eval mode; options are those of :func:`head_config`."""
    head = MaskDINOHead(**head_config(**options)).eval()
    options.pop('points', None)
    reference = build_reference(**options)
    head.load_state_dict(renamed(head, reference.state_dict()))
    return Pair(reference, head)


def renamed(head, values):
    """The reference's names to values -> the head's."""
    ours = {f'bbox_head.{k}': v for k, v in head.state_dict().items()}
    official = {f'sem_seg_head.{k}': v for k, v in values.items()}
    converted = convert_official(official, ours)
    return {k.removeprefix('bbox_head.'): v for k, v in converted.items()}


def random_maps(batch=2, canvas=(64, 96), channels=CHANNELS):
    return [
        torch.randn(batch, c, canvas[0] // s, canvas[1] // s)
        for c, s in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def random_targets(counts, canvas=(64, 96), classes=7):
    """Objects that are filled rectangles with the boxes around them."""
    targets = []
    for count in counts:
        masks = torch.zeros(count, *canvas, dtype=torch.bool)
        boxes = torch.zeros(count, 4)
        for mask, box in zip(masks, boxes, strict=True):
            spans = []
            for side in canvas:
                low, high = torch.randperm(side + 1)[:2].sort().values.tolist()
                spans.append((low, high))
            (y0, y1), (x0, x1) = spans
            mask[y0:y1, x0:x1] = True
            box[:] = torch.tensor(
                [
                    (x0 + x1) / 2 / canvas[1],
                    (y0 + y1) / 2 / canvas[0],
                    (x1 - x0) / canvas[1],
                    (y1 - y0) / canvas[0],
                ]
            )
        targets.append(Target(torch.randint(classes, (count,)), boxes, masks))
    return targets


def random_noises(targets, classes=7, number=100):
    """The reference's noise: one for each image."""
    groups = count_groups(targets, number)
    return [
        Noise(
            torch.rand(groups * len(t.labels)),
            torch.randint(classes, (groups * len(t.labels),)),
            torch.rand(groups * len(t.labels), 4) * 2 - 1,
        )
        for t in targets
    ]


def as_ours(targets, noises):
    """The head's targets, and noise with all images' objects side by side."""
    groups = count_groups(targets)
    parts = [(n.flip < 0.2, n.labels, n.boxes) for n in noises if len(n.flip)]
    return [head_targets.Target(*t) for t in targets], denoising.Noise(
        *(
            torch.cat([x.unflatten(0, (groups, -1)) for x in column], 1)
            for column in zip(*parts, strict=True)
        )
    )


def rendered(predictions, mask_features):
    """The head's predictions as the reference gives them."""
    return Prediction(predictions.logits, predictions.boxes, predictions.mask_logits(mask_features))


def assert_same(ours, wanted, tolerance=1e-4):
    """Logits, boxes and masks within a tolerance, relative and absolute."""
    for name, a, b in zip(wanted._fields, ours, wanted, strict=True):
        torch.testing.assert_close(
            a, b, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: f'{name}: {text}'
        )
