"""GroundingDecoder: a GroundingDINO without its image backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_convert
from transformers.models.grounding_dino.modeling_grounding_dino import build_label_maps

from ..frozen import ExternalModule
from ..teachers import GroundingDINOTeacher
from .prompts import read_text, split_prompts


class Boxes(NamedTuple):
    """Detections in an image, best first.

    Args:
        boxes: Corners x1, y1, x2, y2 in units of the image's width and
            height, (N, 4).
        scores: In [0, 1], (N,).
        labels: Index of the name or phrase, (N,).
        names: All names or phrases, which labels are indices of.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    names: tuple[str, ...]


class GroundingDecoder(ExternalModule):
    """Neck, text encoder, feature enhancer and decoder of a GroundingDINO.

    `GroundingDINO <https://arxiv.org/abs/2303.05499>`_. The score of a
    phrase is the mean over its tokens, as in GroundingDINO's own evaluation
    on COCO and in MMDetection, so that scores of short and long names can be
    compared.

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
        # The logits have one column for each token of the longest text.
        self.width = config.max_text_len
        self.limit = min(self.width, config.text_config.max_position_embeddings)

    @torch.no_grad()
    def detect(
        self,
        maps: Sequence[Tensor],
        names: Sequence[str],
        mask: Tensor | None = None,
        max_per_image: int = 300,
    ) -> list[Boxes]:
        """Find objects of given classes.

        Names that do not fit into one prompt are split into several; the
        best of all queries and classes of all prompts are kept.

        Args:
            maps: In the space of the teacher's backbone, (B, C, H, W).
            names: Class names.
            mask: True where a pixel is real, (B, H, W) bool; None if all
                are. Defaults to None.
            max_per_image: Most boxes for an image. Defaults to 300.

        Returns:
            For each image, its boxes.

        Raises:
            ValueError: If the names cannot be written into prompts.
        """
        scores, boxes, labels = [], [], []
        first = 0
        for prompt in split_prompts(names, self.processor.tokenizer, self.limit, self.width):
            out = self._run(maps, prompt.input_ids, mask)
            shares = prompt.token_shares.to(out.logits)
            score = out.logits.sigmoid() @ shares.T  # (B, Q, K)
            queries, count = score.shape[1:]
            # (B, Q, K) -> (B, Q K), where the class changes fastest
            scores.append(score.flatten(1))
            corners = box_convert(out.pred_boxes, 'cxcywh', 'xyxy')
            # (B, Q, 4) -> (B, Q K, 4)
            boxes.append(corners.repeat_interleave(count, 1))
            label = torch.arange(first, first + count, device=score.device)
            labels.append(label.repeat(queries))
            first += count
        label = torch.cat(labels)
        found = []
        for score, box in zip(torch.cat(scores, 1), torch.cat(boxes, 1), strict=True):
            best = score.topk(min(max_per_image, len(score)))
            i = best.indices
            found.append(Boxes(box[i], best.values, label[i], tuple(names)))
        return found

    @torch.no_grad()
    def ground(
        self,
        maps: Sequence[Tensor],
        text: str,
        mask: Tensor | None = None,
        threshold: float = 0.25,
        text_threshold: float = 0.25,
    ) -> list[Boxes]:
        """Find the objects that a free text mentions.

        Args:
            maps: In the space of the teacher's backbone, (B, C, H, W).
            text: The text.
            mask: True where a pixel is real, (B, H, W) bool; None if all
                are. Defaults to None.
            threshold: Boxes are kept whose best token scores more. Defaults
                to 0.25.
            text_threshold: Tokens that score more make up a box's name. A
                box without any is named by the phrase (up to a full stop)
                of its best token; transformers gives it an empty name.
                Defaults to 0.25.

        Returns:
            For each image, its boxes.

        Raises:
            ValueError: If the text names nothing, is too long, or a phrase
                has no word that the text encoder knows.
        """
        tokens = read_text(text, self.processor.tokenizer, self.limit)
        out = self._run(maps, tokens, mask)
        found = self.processor.post_process_grounded_object_detection(
            out, tokens.expand(len(maps[0]), -1), threshold=threshold, text_threshold=text_threshold
        )
        ids: Any = tokens.to(out.logits.device)
        (phrases,) = build_label_maps(out.logits[:1], ids)
        masks = phrases.bool()
        for result, scores in zip(found, out.logits.sigmoid(), strict=True):
            kept = scores[scores.amax(-1) > threshold]
            # (N, 1, T) x (K, T) -> the best phrase of each box, (N,)
            best = (kept[:, None] * masks).amax(-1).argmax(-1).tolist()
            result['text_labels'] = [
                label
                # special tokens and punctuation are no name
                if re.search(r'\w', re.sub(r'\[[A-Z]+\]', '', label))
                else self.processor.decode(tokens[0, masks[i, : tokens.shape[1]].cpu()])
                for label, i in zip(result['text_labels'], best, strict=True)
            ]
        return [_phrases(result) for result in found]

    def _run(self, maps: Sequence[Tensor], tokens: Tensor, mask: Tensor | None) -> Any:
        batch, device = len(maps[0]), maps[0].device
        if mask is None:
            mask = torch.ones(batch, 1, 1, device=device)
        tokens = tokens.to(device).expand(batch, -1)
        with self.teacher.inject(maps) as detector:
            return detector(
                # The injected maps replace the images; only the batch size
                # is read from them.
                pixel_values=maps[0].new_zeros(batch, 3, 1, 1),
                pixel_mask=mask.long(),
                input_ids=tokens,
                token_type_ids=torch.zeros_like(tokens),
                attention_mask=torch.ones_like(tokens),
            )


def _phrases(result: Mapping[str, Any]) -> Boxes:
    """Convert what transformers' post-processing gives for an image."""
    order = result['scores'].argsort(descending=True)
    phrases = result['text_labels']
    # One label for each distinct phrase, in the order of appearance.
    names = tuple(dict.fromkeys(phrases))
    labels = [names.index(phrases[i]) for i in order.tolist()]
    return Boxes(
        result['boxes'][order],
        result['scores'][order],
        torch.tensor(labels, dtype=torch.long, device=order.device),
        names,
    )
