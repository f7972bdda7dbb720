"""FlorenceDetector: Florence-2, which writes down what it detects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn
from transformers import (
    Florence2ForConditionalGeneration,
    Florence2Processor,
)

from kpu_mm.registry import MODELS
from kpu_mm.weights.hub import fetch_folder
from kpu_mm.weights.pretrained import load_transformers

from ..frozen import ExternalModule

_TASK = '<OD>'


@MODELS.register_module()
class FlorenceDetector(BaseModel):
    """Florence-2 as a detector of MMDetection, to compare with.

    `Florence-2 <https://arxiv.org/abs/2311.06242>`_ answers the prompt of
    object detection with names and boxes of its own choice. A box whose name
    is none of the classes is left out. It gives no scores: all boxes count
    the same, in the order in which they were written. Boxes are whole
    pixels, as its processor gives them.

    Args:
        source: Folder of a transformers model, or its name on the hub, such
            as 'florence-community/Florence-2-base'.
        classes: Names of the classes in samples without ``text``. Defaults
            to None.
        num_beams: Beams of the search for the answer. Defaults to 3.
        max_new_tokens: Where an answer is cut off. Defaults to 1024.
        data_preprocessor: Config of MMDetection's, without mean and
            standard deviation: the model's processor resizes and normalises.
            Defaults to None.

    Raises:
        FileNotFoundError: If files are missing while the hub is away.
        RuntimeError: If the weights are broken or incomplete.
    """

    def __init__(
        self,
        source: str,
        classes: Sequence[str] | None = None,
        num_beams: int = 3,
        max_new_tokens: int = 1024,
        data_preprocessor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        folder = fetch_folder(source)
        self.florence = _Florence(
            load_transformers(Florence2ForConditionalGeneration, folder)
        )
        try:
            self.processor = Florence2Processor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, TypeError) as error:
            raise FileNotFoundError(
                f"The processor in '{folder}' cannot be read: put "
                'processor_config.json, preprocessor_config.json, '
                'tokenizer.json and tokenizer_config.json there.'
            ) from error
        self.classes = classes
        self.num_beams = num_beams
        self.max_new_tokens = max_new_tokens

    def forward(
        self,
        inputs: Tensor,
        data_samples: Sequence[Any] | None = None,
        mode: str = 'predict',
    ) -> Any:
        """Detections.

        Args:
            inputs: Raw RGB in [0, 255], (B, 3, H, W), padded at the right
                and the bottom.
            data_samples: MMDetection's. Defaults to None.
            mode: Only 'predict'. Defaults to 'predict'.

        Raises:
            ValueError: If the mode is another, or there are no samples.
        """
        if mode != 'predict' or data_samples is None:
            raise ValueError(
                f"mode={mode!r}: FlorenceDetector knows 'predict' with data "
                'samples only.'
            )
        return self.predict(inputs, data_samples)

    @torch.no_grad()
    def predict(
        self, inputs: Tensor, data_samples: Sequence[Any]
    ) -> Sequence[Any]:
        """Add to each sample what was found.

        Args:
            inputs: Raw RGB in [0, 255], (B, 3, H, W).
            data_samples: With 'img_shape' and 'ori_shape', and the class
                names as ``text``.

        Returns:
            The samples with ``pred_instances``: bboxes (N, 4) in pixels of
            the original image, scores (N,), all 1, labels (N,), and
            label_names.
        """
        images = [
            image[:, : sample.img_shape[0], : sample.img_shape[1]].byte().cpu()
            for image, sample in zip(inputs, data_samples, strict=True)
        ]
        answers = self.answer(images)
        for answer, sample in zip(answers, data_samples, strict=True):
            height, width = sample.ori_shape[:2]
            found = self.processor.post_process_generation(
                answer, task=_TASK, image_size=(width, height)
            )[_TASK]
            sample.pred_instances = _keep_classes(
                found, self._classes(sample), inputs.device
            )
        return data_samples

    @torch.no_grad()
    def answer(self, images: Sequence[Tensor]) -> list[str]:
        """What the model writes.

        Args:
            images: RGB, (3, H, W) uint8 each, of any sizes.

        Returns:
            A text for each image, special tokens included.
        """
        model: Any = self.florence.model
        batch = self.processor(
            images=list(images),
            text=[_TASK] * len(images),
            return_tensors='pt',
        ).to(model.device)
        tokens = model.generate(
            **batch,
            num_beams=self.num_beams,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
        )
        answers: list[str] = self.processor.batch_decode(
            tokens, skip_special_tokens=False
        )
        return answers

    def _classes(self, sample: Any) -> Sequence[str]:
        classes = sample.get('text', self.classes)
        if classes is None or isinstance(classes, str):
            raise ValueError(
                'FlorenceDetector needs a list of class names: pass classes, '
                'or let the data set give them (return_classes=True, and '
                "'text' among PackDetInputs' meta_keys)."
            )
        return list(classes)


class _Florence(ExternalModule):
    """Keeps the model out of checkpoints.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def _keep_classes(
    found: dict[str, Any], classes: Sequence[str], device: torch.device
) -> InstanceData:
    index = {name.strip().lower(): i for i, name in enumerate(classes)}
    kept = [
        (box, index[name.strip().lower()])
        for box, name in zip(found['bboxes'], found['labels'], strict=True)
        if name.strip().lower() in index
    ]
    boxes = torch.tensor([box for box, _ in kept], device=device)
    labels = torch.tensor(
        [label for _, label in kept], dtype=torch.long, device=device
    )
    return InstanceData(
        bboxes=boxes.view(-1, 4).float(),
        scores=torch.ones(len(kept), device=device),
        labels=labels,
        label_names=[classes[i] for _, i in kept],
    )
