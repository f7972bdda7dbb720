"""ZeroShotDetector: boxes for any names, by a GroundingDINO's decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor

from kpu_mm.registry import MODELS

from .grounding_decoder import Boxes, GroundingDecoder


@MODELS.register_module()
class ZeroShotDetector(BaseModel):
    """A GroundingDINO of transformers as a detector of MMDetection.

    It goes through MMDetection's data sets, metrics and visualizers. What to
    look for is each sample's ``text``: a list of class names (a data set
    with ``return_classes=True``), or a free text, whose phrases it grounds;
    with ``custom_entities`` a text is a list with dots between its names.

    Args:
        teacher: Arguments of :class:`GroundingDINOTeacher` besides
            ``with_text``.
        encoder: Config of what stands in for the teacher's image backbone,
            a :class:`ProjectedBackbone`; None is the teacher's own.
            Defaults to None.
        classes: What to look for in samples without ``text``. Defaults to
            None.
        max_per_image: Most boxes for an image, of all classes. Defaults to
            300.
        threshold: Of a free text, boxes are kept that score more. Defaults
            to 0.25.
        text_threshold: Tokens that score more make up a box's phrase.
            Defaults to 0.25.
        data_preprocessor: Config of MMDetection's, without mean and
            standard deviation: the encoder normalises. Defaults to None.

    Raises:
        ValueError: If the encoder's maps are not those of the teacher.
    """

    def __init__(
        self,
        teacher: Mapping[str, Any],
        encoder: dict[str, Any] | None = None,
        classes: Sequence[str] | None = None,
        max_per_image: int = 300,
        threshold: float = 0.25,
        text_threshold: float = 0.25,
        data_preprocessor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.decoder = GroundingDecoder(teacher)
        self.encoder = None if encoder is None else MODELS.build(encoder)
        self.classes = classes
        self.max_per_image = max_per_image
        self.threshold = threshold
        self.text_threshold = text_threshold
        expected = self.decoder.teacher.channels
        if self.encoder is not None and self.encoder.channels != expected:
            raise ValueError(
                f"the teacher's decoder takes maps of {expected} channels, "
                f'the encoder gives {self.encoder.channels}; use the student '
                'and the teacher of one distillation run.'
            )

    def forward(
        self,
        inputs: Tensor,
        data_samples: Sequence[Any] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Maps or predictions.

        Args:
            inputs: Raw RGB in [0, 255], (B, 3, H, W), padded at the right
                and the bottom.
            data_samples: MMDetection's, for 'predict'. Defaults to None.
            mode: 'tensor' for the encoder's maps, or 'predict' for the
                samples with ``pred_instances``. Defaults to 'tensor'.

        Raises:
            ValueError: If the mode is another, or 'predict' has no samples.
        """
        if mode == 'tensor':
            return self.encode(inputs)
        if mode == 'predict' and data_samples is not None:
            return self.predict(inputs, data_samples)
        raise ValueError(
            f"mode={mode!r}: a zero-shot detector knows 'tensor', and "
            "'predict' with data samples; it is not trained."
        )

    def encode(
        self, images: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """The maps that the decoder goes on from.

        Args:
            images: Raw RGB in [0, 255], (B, 3, H, W).
            mask: True where a pixel is real, (B, H, W) bool; None if all
                are. Defaults to None.
        """
        if self.encoder is None:
            return self.decoder.teacher(images, mask).maps
        maps: tuple[Tensor, ...] = self.encoder.encode(images, mask).maps
        return maps

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, data_samples: Sequence[Any]
    ) -> Sequence[Any]:
        """Add to each sample what was found.

        Args:
            inputs: Raw RGB in [0, 255], (B, 3, H, W).
            data_samples: With 'img_shape' and 'ori_shape', and the text.

        Returns:
            The samples with ``pred_instances``: bboxes (N, 4) in pixels of
            the original image, scores (N,), labels (N,), and label_names.
        """
        mask = torch.zeros_like(inputs[:, 0], dtype=torch.bool)
        asked: dict[Any, list[int]] = {}
        for i, sample in enumerate(data_samples):
            height, width = sample.img_shape[:2]
            mask[i, :height, :width] = True
            asked.setdefault(self._text(sample), []).append(i)
        maps = self.encode(inputs, mask)
        for text, members in asked.items():
            found = self._find([m[members] for m in maps], text, mask[members])
            for i, boxes in zip(members, found, strict=True):
                sample = data_samples[i]
                sample.pred_instances = _in_pixels(boxes, sample.ori_shape)
        return data_samples

    def _find(
        self, maps: Sequence[Tensor], text: str | tuple[str, ...], mask: Tensor
    ) -> list[Boxes]:
        if isinstance(text, str):
            return self.decoder.ground(
                maps, text, mask, self.threshold, self.text_threshold
            )
        return self.decoder.detect(maps, text, mask, self.max_per_image)

    def _text(self, sample: Any) -> str | tuple[str, ...]:
        text = sample.get('text', self.classes)
        if text is None:
            raise ValueError(
                'nothing to look for: pass classes to the detector, or let '
                "the data set give them (return_classes=True, and 'text' "
                "among PackDetInputs' meta_keys)."
            )
        if isinstance(text, str) and sample.get('custom_entities', False):
            parts = map(str.strip, text.split('.'))
            text = [part for part in parts if part]
        return text if isinstance(text, str) else tuple(text)


def _in_pixels(found: Boxes, shape: Sequence[int]) -> InstanceData:
    height, width = shape[:2]
    scale = found.boxes.new_tensor([width, height, width, height])
    return InstanceData(
        bboxes=found.boxes.clamp(0, 1) * scale,
        scores=found.scores,
        labels=found.labels,
        label_names=[found.names[i] for i in found.labels.tolist()],
    )
