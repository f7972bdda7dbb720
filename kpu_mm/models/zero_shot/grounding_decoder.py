"""GroundingDecoder: all of a GroundingDINO but its image backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_convert

from ..frozen import ExternalModule
from ..teachers import GroundingDINOTeacher
from .prompts import read_text, split_prompts


class Boxes(NamedTuple):
    """What was found in an image, best first.

    Args:
        boxes: Corners x1, y1, x2, y2 in units of the image's width and
            height, (N, 4).
        scores: In [0, 1], (N,).
        labels: Index of the name or phrase, (N,).
        names: The names or phrases.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    names: tuple[str, ...]


class GroundingDecoder(ExternalModule):
    """Neck, text encoder, feature enhancer and decoder of a GroundingDINO.

    `GroundingDINO <https://arxiv.org/abs/2303.05499>`_. A phrase scores the
    mean over its tokens, as in GroundingDINO's own evaluation on COCO and in
    MMDetection, so that names of one token and of several compare.

    Args:
        teacher: Arguments of :class:`GroundingDINOTeacher` besides
            ``with_text``.

    Raises:
        FileNotFoundError: If the model has no tokenizer.
    """

    def __init__(self, teacher: Mapping[str, Any]) -> None:
        super().__init__()
        self.teacher = GroundingDINOTeacher(**teacher, with_text=True)
        self.processor = self.teacher.processor()
        model: Any = self.teacher.model
        config = model.config
        self.width = config.max_text_len
        self.limit = min(
            self.width, config.text_config.max_position_embeddings
        )

    @torch.no_grad()
    def detect(
        self,
        maps: Sequence[Tensor],
        names: Sequence[str],
        mask: Tensor | None = None,
        max_per_image: int = 300,
    ) -> list[Boxes]:
        """Find objects of given classes.

        Names that do not fit into one prompt are asked for in several; the
        best of all queries and classes of all prompts are kept.

        Args:
            maps: What the teacher's backbone would give, (B, C, H, W).
            names: Class names.
            mask: True where a pixel is real, (B, H, W) bool; None if all
                are. Defaults to None.
            max_per_image: Most boxes for an image. Defaults to 300.

        Returns:
            For each image, its boxes.

        Raises:
            ValueError: If the names are no prompt.
        """
        scores, boxes = [], []
        for prompt in split_prompts(
            names, self.processor.tokenizer, self.limit, self.width
        ):
            out = self._run(maps, prompt.input_ids, mask)
            share = prompt.tokens_of.to(out.logits)
            scores.append(out.logits.sigmoid() @ share.T)  # (B, Q, K)
            boxes.append(box_convert(out.pred_boxes, 'cxcywh', 'xyxy'))
        return [
            _best(
                [s[i] for s in scores],
                [b[i] for b in boxes],
                tuple(names),
                max_per_image,
            )
            for i in range(len(maps[0]))
        ]

    @torch.no_grad()
    def ground(
        self,
        maps: Sequence[Tensor],
        text: str,
        mask: Tensor | None = None,
        threshold: float = 0.25,
        text_threshold: float = 0.25,
    ) -> list[Boxes]:
        """Find what a free text speaks of.

        Args:
            maps: What the teacher's backbone would give, (B, C, H, W).
            text: The text.
            mask: True where a pixel is real, (B, H, W) bool; None if all
                are. Defaults to None.
            threshold: Boxes are kept whose best token scores more. Defaults
                to 0.25.
            text_threshold: Tokens that score more make up a box's phrase.
                Defaults to 0.25.

        Returns:
            For each image, its boxes.

        Raises:
            ValueError: If the text says nothing, or is too long.
        """
        tokens = read_text(text, self.processor.tokenizer, self.limit)
        out = self._run(maps, tokens, mask)
        found = self.processor.post_process_grounded_object_detection(
            out,
            tokens.expand(len(maps[0]), -1),
            threshold=threshold,
            text_threshold=text_threshold,
        )
        return [_phrases(result) for result in found]

    def _run(
        self, maps: Sequence[Tensor], tokens: Tensor, mask: Tensor | None
    ) -> Any:
        batch, device = len(maps[0]), maps[0].device
        if mask is None:
            mask = torch.ones(batch, 1, 1, device=device)
        tokens = tokens.to(device).expand(batch, -1)
        with self.teacher.inject(maps) as detector:
            return detector(
                # it only counts how many images there are
                pixel_values=maps[0].new_zeros(batch, 3, 1, 1),
                pixel_mask=mask.long(),
                input_ids=tokens,
                token_type_ids=torch.zeros_like(tokens),
                attention_mask=torch.ones_like(tokens),
            )


def _best(
    scores: Sequence[Tensor],
    boxes: Sequence[Tensor],
    names: tuple[str, ...],
    count: int,
) -> Boxes:
    """Top of all prompts; scores (Q, K_p) and boxes (Q, 4) of each."""
    first, all_scores, all_boxes, all_labels = 0, [], [], []
    for score, box in zip(scores, boxes, strict=True):
        queries, classes = score.shape
        all_scores.append(score.flatten())
        all_boxes.append(box.repeat_interleave(classes, 0))
        labels = torch.arange(first, first + classes, device=score.device)
        all_labels.append(labels.repeat(queries))
        first += classes
    score = torch.cat(all_scores)
    top = score.topk(min(count, len(score)))
    return Boxes(
        torch.cat(all_boxes)[top.indices],
        top.values,
        torch.cat(all_labels)[top.indices],
        names,
    )


def _phrases(result: Mapping[str, Any]) -> Boxes:
    order = result['scores'].argsort(descending=True)
    phrases = result['text_labels']
    names = tuple(dict.fromkeys(phrases))
    labels = [names.index(phrases[i]) for i in order.tolist()]
    return Boxes(
        result['boxes'][order],
        result['scores'][order],
        torch.tensor(labels, dtype=torch.long, device=order.device),
        names,
    )
