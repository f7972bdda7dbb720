"""Ask a GroundingDINO for all ten digits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert

from kpu_mm.models.zero_shot import Boxes

from .captions import FIRST_DIGIT
from .dense_heads import normalise
from .materials import DIGIT_WORDS

_START, _END, _DOT = 101, 102, 1012


class Prompt:
    """The ten digit words in some order.

    Args:
        order: The digits, (10,).

    Attributes:
        ids: Token ids of 'three. one. ...', (22,).
        column: Where each digit's word is in the text, (10,).
        place: Which phrase names each digit, (10,).
    """

    def __init__(self, order: Tensor) -> None:
        words = torch.stack(
            [order + FIRST_DIGIT, torch.full_like(order, _DOT)]
        )
        edge = order.new_tensor
        self.ids = torch.cat([edge([_START]), words.T.flatten(), edge([_END])])
        self.place = order.argsort()
        self.column = 1 + 2 * self.place


def detect(
    detector: Any, images: Tensor, prompt: Prompt, labels: Any = None
) -> Any:
    """The detector's own output for images (B, H, W, 3) uint8.

    Args:
        detector: GroundingDINO.
        images: Scenes.
        prompt: One text for all.
        labels: As the library wants them. Defaults to None.
    """
    pixels = normalise(images)
    ids = prompt.ids.expand(len(images), -1)
    return detector(
        pixel_values=pixels,
        pixel_mask=torch.ones_like(pixels[:, 0], dtype=torch.long),
        input_ids=ids,
        token_type_ids=torch.zeros_like(ids),
        attention_mask=torch.ones_like(ids),
        labels=labels,
    )


def find_digits(detector: Any, images: Tensor) -> list[Boxes]:
    """What a detector finds when it is asked for all ten digits.

    Args:
        detector: GroundingDINO in eval mode.
        images: Scenes, (B, H, W, 3) uint8.

    Returns:
        For each scene every query with every digit.
    """
    prompt = Prompt(torch.arange(10))
    out = detect(detector, images, prompt)
    scores = out.logits[..., prompt.column].sigmoid()  # (B, Q, 10)
    boxes = box_convert(out.pred_boxes, 'cxcywh', 'xyxy')
    labels = torch.arange(10).repeat(scores.shape[1])
    return [
        Boxes(
            box.repeat_interleave(10, 0), score.flatten(), labels, DIGIT_WORDS
        )
        for box, score in zip(boxes, scores, strict=True)
    ]
