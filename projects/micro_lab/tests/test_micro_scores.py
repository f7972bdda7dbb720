from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_convert

from projects.micro_lab.materials import DIGIT_WORDS
from projects.micro_lab.micro_scores import (
    average_precision,
    cell_classes,
    find_digits,
    mean_iou,
    probe,
    zero_shot_accuracy,
)


def test_mean_iou_by_hand():
    found = torch.tensor([0, 0, 1, 1, 1])
    wanted = torch.tensor([0, 1, 1, 1, 0])
    # Intersection over union: class 0 has 1 of 3, class 1 has 2 of 4.
    assert mean_iou(found, wanted, 2) == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_cell_classes(scenes):
    pixels = cell_classes(scenes, 64).view(24, 64, 64)
    for index, instances in enumerate(scenes.instances):
        for number, digit in enumerate(scenes.digits[index]):
            assert (pixels[index][instances == number + 1] == digit + 1).all()
    assert (pixels[scenes.instances == 0] == 0).all()


class Oracle:
    """A detector that returns the labels, wrong for the first scenes."""

    def __init__(self, scenes, wrong):
        self.scenes, self.wrong = scenes, wrong

    def __call__(self, pixel_values, **_):
        scenes = self.scenes
        logits = torch.full((len(pixel_values), 5, 32), -10.0)
        image, number = (scenes.digits >= 0).nonzero(as_tuple=True)
        digit = (scenes.digits[image, number] + (image < self.wrong)) % 10
        logits[image, number, 1 + 2 * digit] = 10.0
        boxes = box_convert(scenes.boxes / 64, 'xyxy', 'cxcywh')
        return SimpleNamespace(logits=logits, pred_boxes=boxes)


def test_average_precision(scenes):
    def score(wrong):
        find = partial(find_digits, Oracle(scenes, wrong))
        return average_precision(find, scenes, 24)

    assert score(0) == {'AP': 1.0, 'AP50': 1.0, 'AP75': 1.0}
    assert score(24)['AP'] < 0.1
    assert 0.3 < score(12)['AP'] < 0.8


def test_zero_shot(scenes):
    table = torch.eye(10)

    def encode(tokens):
        return table[tokens]

    def tokenizer(texts):
        digits = [DIGIT_WORDS.index(text.split()[-1]) for text in texts]
        return torch.tensor(digits)

    def features(images):
        return table[scenes.digits[:, 0]], None

    scores = zero_shot_accuracy(features, encode, tokenizer, scenes)
    assert scores['zero_shot_top1'] == 1
    assert scores['zero_shot_top1_one_digit'] == 1
    # Every label is now wrong by one.
    shifted = ((scenes.digits + 1) % 10).where(scenes.digits >= 0, -1)
    other = scenes._replace(digits=shifted)
    assert zero_shot_accuracy(features, encode, tokenizer, other) == {
        'zero_shot_top1': 0,
        'zero_shot_top1_one_digit': 0,
    }


def test_probes_depend_on_no_global_seed(scenes):
    def features(images):
        # (B, 64, 64, 3) -> (B, 1, 8, 8)
        grey = F.avg_pool2d(images.float().mean(-1)[:, None], 8)
        return grey.flatten(1), grey

    found = []
    for seed in (0, 1, 2):
        torch.manual_seed(seed)
        found.append(probe(features, scenes, scenes, steps=3))
    assert found[0] == found[1] == found[2]


def test_probe_reads_what_is_there(scenes):
    def features(images):
        summary = F.one_hot(scenes.digits[:, 0], 10).float()
        cells = F.one_hot(cell_classes(scenes, 8).view(-1, 8, 8), 11)
        return summary, cells.permute(0, 3, 1, 2).float()

    scores = probe(features, scenes, scenes, steps=200)
    assert scores['probe_top1'] == 1
    assert len(cell_classes(scenes, 8).unique()) == 11
    assert scores['patch_miou'] > 0.99
    # Constant features predict one class only.
    nothing = probe(
        lambda images: tuple(torch.zeros_like(x) for x in features(images)), scenes, scenes, 200
    )
    assert nothing['probe_top1'] < 0.5 and nothing['patch_miou'] < 0.1
    # Without a step one class is predicted for all.
    untrained = probe(features, scenes, scenes, steps=0)['probe_top1']
    assert untrained in (scenes.digits[:, 0].bincount(minlength=10) / len(scenes.digits)).tolist()
