"""FlorenceDetector: Florence-2, which generates its detections as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor
from transformers import Florence2ForConditionalGeneration, Florence2Processor

from kpu_mm.registry import MODELS
from kpu_mm.weights.hub import fetch_folder
from kpu_mm.weights.pretrained import load_transformers

from ..frozen import ExternalModule
from .zero_shot_detector import PromptedDetector

# The prompt for object detection, in the model card of Florence-2.
_TASK = '<OD>'


@MODELS.register_module()
class FlorenceDetector(PromptedDetector):
    """Florence-2 as a detector of MMDetection, to compare with.

    `Florence-2 <https://arxiv.org/abs/2311.06242>`_ answers the prompt of
    object detection with names and boxes of its own choice. A box whose name
    is none of the classes is left out. The model gives no scores: all boxes
    score 1, in the order of the generated text. Boxes are whole pixels, as
    its processor gives them.

    Args:
        source: Folder of a transformers model, or its name on the hub, such
            as 'florence-community/Florence-2-base'.
        classes: Names of the classes in samples without ``text``. Defaults
            to None.
        max_new_tokens: Most tokens of a generated text. Defaults to 1024.
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
        max_new_tokens: int = 1024,
        data_preprocessor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(classes, data_preprocessor)
        folder = fetch_folder(source)
        # An external module, which keeps the weights out of checkpoints.
        self.florence: Any = ExternalModule()
        self.florence.model = load_transformers(Florence2ForConditionalGeneration, folder)
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
        self.max_new_tokens = max_new_tokens

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[Any]) -> Sequence[Any]:
        """See :meth:`PromptedDetector.predict`; free texts are refused."""
        # The processor resizes whole images, so padding is cut off.
        images = [
            image[:, : sample.img_shape[0], : sample.img_shape[1]].byte().cpu()
            for image, sample in zip(inputs, data_samples, strict=True)
        ]
        texts = self.generate(images)
        # Boxes are scaled to the original image, as MMDetection's metrics
        # expect.
        for text, sample in zip(texts, data_samples, strict=True):
            classes = self.prompt(sample)
            if isinstance(classes, str):
                raise ValueError(
                    'FlorenceDetector needs a list of class names, but the '
                    f'prompt is the text {classes!r}.'
                )
            height, width = sample.ori_shape[:2]
            found = self.processor.post_process_generation(
                text, task=_TASK, image_size=(width, height)
            )[_TASK]
            sample.pred_instances = _keep_classes(found, classes, inputs.device)
        return data_samples

    @torch.no_grad()
    def generate(self, images: Sequence[Tensor]) -> list[str]:
        """Generate the text that holds names and boxes.

        Args:
            images: RGB, (3, H, W) uint8 each, of any sizes.

        Returns:
            A text for each image, special tokens included.
        """
        model = self.florence.model
        batch = self.processor(
            images=list(images), text=[_TASK] * len(images), return_tensors='pt'
        ).to(model.device)
        tokens = model.generate(
            **batch,
            # As in the model card.
            num_beams=3,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
        )
        # The location tokens, which hold the boxes, are special tokens.
        texts: list[str] = self.processor.batch_decode(tokens, skip_special_tokens=False)
        return texts


def _keep_classes(
    found: dict[str, Any], classes: Sequence[str], device: torch.device
) -> InstanceData:
    """Keep the boxes whose names are classes, whatever their case."""
    index = {name.strip().lower(): i for i, name in enumerate(classes)}
    labels = [index.get(name.strip().lower(), -1) for name in found['labels']]
    kept = [i for i, label in enumerate(labels) if label >= 0]
    boxes = torch.tensor([found['bboxes'][i] for i in kept], device=device)
    return InstanceData(
        # An empty list gives (0,), but MMDetection needs (0, 4).
        bboxes=boxes.view(-1, 4).float(),
        scores=torch.ones(len(kept), device=device),
        labels=torch.tensor([labels[i] for i in kept], dtype=torch.long, device=device),
        label_names=[classes[labels[i]] for i in kept],
    )
