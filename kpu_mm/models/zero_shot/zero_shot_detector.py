"""ZeroShotDetector: MMDetection's view of a GroundingDINO's decoder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor

from kpu_mm.registry import MODELS

from ..encoder import Encoder
from .grounding_decoder import Boxes, GroundingDecoder


class PromptedDetector(BaseModel):
    """A detector of MMDetection that takes class names and is not trained.

    Args:
        classes: Class names for samples without ``text``.
        data_preprocessor: Config of MMDetection's, without mean and
            standard deviation: the model normalises images itself.
    """

    def __init__(
        self, classes: Sequence[str] | None, data_preprocessor: dict[str, Any] | None
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.classes = classes

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None, mode: str = 'predict'
    ) -> Any:
        """Detect objects, the only mode that there is.

        Args:
            inputs: Raw RGB in [0, 255], (B, 3, H, W), padded at the right
                and the bottom.
            data_samples: MMDetection's. Defaults to None.
            mode: 'predict'. Defaults to 'predict'.

        Raises:
            ValueError: If the mode is another, or there are no samples.
        """
        if mode != 'predict' or data_samples is None:
            raise ValueError(
                f"mode={mode!r}: {type(self).__name__} knows 'predict' with "
                'data samples only; it is not trained.'
            )
        return self.predict(inputs, data_samples)

    @abstractmethod
    def predict(self, inputs: Tensor, data_samples: Sequence[Any]) -> Sequence[Any]:
        """Add the detections to each sample.

        Args:
            inputs: Raw RGB in [0, 255], (B, 3, H, W).
            data_samples: With 'img_shape' and 'ori_shape', and the prompt
                as ``text``.

        Returns:
            The samples with ``pred_instances``: bboxes (N, 4) in pixels of
            the original image, scores (N,), labels (N,), and label_names.
        """

    def prompt(self, sample: Any) -> str | tuple[str, ...]:
        """Return a sample's free text, or its class names.

        Args:
            sample: MMDetection's.

        Raises:
            ValueError: If it has neither, and there are no default classes.
        """
        text = sample.get('text', self.classes)
        if text is None:
            raise ValueError(
                'nothing to look for: pass classes to the detector, or let '
                "the data set give them (return_classes=True, and 'text' "
                "among PackDetInputs' meta_keys)."
            )
        if not isinstance(text, str):
            return tuple(text)
        if sample.get('custom_entities', False):
            parts = map(str.strip, text.split('.'))
            return tuple(part for part in parts if part)
        return text


@MODELS.register_module()
class ZeroShotDetector(PromptedDetector):
    """A GroundingDINO of transformers as a detector of MMDetection.

    `GroundingDINO <https://arxiv.org/abs/2303.05499>`_. It works with
    MMDetection's data sets, metrics and visualizers. The prompt is each
    sample's ``text``: a list of class names (a data set with
    ``return_classes=True``), or a free text, whose phrases are grounded;
    with ``custom_entities`` a text is a list with dots between its names.

    Args:
        teacher: Arguments of :class:`GroundingDINOTeacher` besides
            ``with_text``.
        encoder: Config of a :class:`ProjectedBackbone`, which replaces the
            teacher's image backbone; None keeps the teacher's own. Defaults
            to None.
        classes: Class names for samples without ``text``. Defaults to None.
        max_per_image: Most boxes for an image, of all classes. Defaults to
            300.
        threshold: Boxes for a free text are kept that score more. Defaults
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
        super().__init__(classes, data_preprocessor)
        self.decoder = GroundingDecoder(teacher)
        self.encoder = None if encoder is None else MODELS.build(encoder)
        self.max_per_image = max_per_image
        self.threshold = threshold
        self.text_threshold = text_threshold
        # A student of another teacher would give nonsense, or fail late.
        expected = self.decoder.teacher.channels
        if self.encoder is not None and self.encoder.channels != expected:
            raise ValueError(
                f"the teacher's decoder takes maps of {expected} channels, "
                f'the encoder gives {self.encoder.channels}; use the student '
                'and the teacher of one distillation run.'
            )

    def encode(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Compute the maps that the decoder takes.

        Args:
            images: Raw RGB in [0, 255], (B, 3, H, W).
            mask: True where a pixel is real, (B, H, W) bool; None if all
                are. Defaults to None.
        """
        # The decoder's teacher is no sub-module, so that the state dict is
        # empty; it must not become one as self.encoder.
        encoder: Encoder = self.encoder or self.decoder.teacher
        return encoder.encode(images, mask).maps

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[Any]) -> Sequence[Any]:
        """See :meth:`PromptedDetector.predict`."""
        mask = torch.zeros_like(inputs[:, 0], dtype=torch.bool)
        members: dict[str | tuple[str, ...], list[int]] = {}
        for i, sample in enumerate(data_samples):
            height, width = sample.img_shape[:2]
            # Images are padded at the right and the bottom.
            mask[i, :height, :width] = True
            members.setdefault(self.prompt(sample), []).append(i)
        maps = self.encode(inputs, mask)
        # Samples with the same prompt go through the decoder together.
        for prompt, indices in members.items():
            part, part_mask = [m[indices] for m in maps], mask[indices]
            if isinstance(prompt, str):
                found = self.decoder.ground(
                    part, prompt, part_mask, self.threshold, self.text_threshold
                )
            else:
                found = self.decoder.detect(part, prompt, part_mask, self.max_per_image)
            for i, boxes in zip(indices, found, strict=True):
                sample = data_samples[i]
                sample.pred_instances = _in_pixels(boxes, sample.ori_shape)
        return data_samples


def _in_pixels(found: Boxes, shape: Sequence[int]) -> InstanceData:
    """Scale boxes from units of the image's sides to pixels."""
    height, width = shape[:2]
    # Boxes may reach out of the image by a little.
    scale = found.boxes.new_tensor([width, height, width, height])
    return InstanceData(
        bboxes=found.boxes.clamp(0, 1) * scale,
        scores=found.scores,
        labels=found.labels,
        label_names=[found.names[i] for i in found.labels.tolist()],
    )
