"""Detection, zero-shot and with a trained decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from mmengine.config import Config

from .base_inferencer import ImageInferencer
from .question import read_question, set_text
from .trained_inferencer import TrainedInferencer
from .zero_shot_config import Places
from .zero_shot_inferencer import ZeroShotInferencer


class _Boxes(ImageInferencer):
    """How MMDetection's predictions are told and drawn."""

    visualizer_type = 'mmdet.DetLocalVisualizer'
    names: Sequence[str] = ()

    def draw(self, rgb: np.ndarray, found: Any) -> np.ndarray:
        """Draw boxes, and masks where there are some.

        Args:
            rgb: The image, (H, W, 3) uint8.
            found: MMDetection's sample.
        """
        self.visualizer.dataset_meta = dict(classes=self.names, palette=None)
        self.visualizer.add_datasample(
            'found', rgb, found, draw_gt=False, pred_score_thr=-1.0
        )
        drawn: np.ndarray = self.visualizer.get_image()
        return drawn

    def describe(self, found: Any) -> dict[str, Any]:
        """Boxes, scores and names; masks where there are some.

        Args:
            found: MMDetection's sample.
        """
        result: dict[str, Any] = {}
        if 'pred_instances' in found:
            boxes = found.pred_instances.numpy()
            result |= dict(
                bboxes=boxes.bboxes.tolist(),
                scores=boxes.scores.tolist(),
                labels=boxes.labels.tolist(),
                names=boxes.label_names,
            )
            if 'masks' in boxes:
                result['masks'] = _encode(boxes.masks)
        for key in ('sem_seg', 'panoptic_seg'):
            if f'pred_{key}' in found:
                pixels = found.get(f'pred_{key}').sem_seg[0]
                result[key] = pixels.cpu().numpy().astype(np.int32)
        return result


class DetectionInferencer(TrainedInferencer, _Boxes):
    """Boxes and masks by a trained detector of MMDetection.

    Any of its configs will do, and this package's in
    ``configs/downstream/coco``. See :class:`TrainedInferencer` for the
    arguments. A call takes, besides those of :class:`ImageInferencer`:

    * ``threshold``: boxes are kept that score more; 0.3 if left out;
    * ``classes`` or ``texts``: what a detector of MMDetection that reads
      text, such as its GroundingDINO, looks for: names, or one free text.

    A detector with a semantic or panoptic branch also gives ``sem_seg`` and
    ``panoptic_seg`` (class + id * 1000), arrays (H, W).
    """

    forward_kwargs: ClassVar[set[str]] = {'threshold', 'classes', 'texts'}

    def forward(
        self,
        inputs: Any,
        threshold: float = 0.3,
        classes: Sequence[str] | None = None,
        texts: str | None = None,
    ) -> Any:
        """Detect in a batch.

        Args:
            inputs: The batch.
            threshold: As in a call. Defaults to 0.3.
            classes: As in a call. Defaults to None.
            texts: As in a call. Defaults to None.

        Returns:
            MMDetection's samples.

        Raises:
            ValueError: If names and a text are given.
        """
        if classes is not None or texts is not None:
            set_text(inputs, read_question(classes, texts))
        samples = self.model.test_step(inputs)
        for sample in samples:
            if 'pred_instances' in sample:
                boxes = sample.pred_instances
                if 'label_names' not in boxes:
                    boxes.label_names = [self.names[i] for i in boxes.labels]
                keep_better(sample, threshold)
        return samples


class ZeroShotDetectionInferencer(ZeroShotInferencer, _Boxes):
    """Boxes for any names or a free text, by a GroundingDINO's decoder.

    See :class:`ZeroShotInferencer` for the arguments, which the three
    zero-shot Inferencers have in common. A call takes, besides those of
    :class:`ImageInferencer`:

    * ``classes``: names to look for; or
    * ``texts``: one free text, whose phrases are grounded in every image;
      without either the config's classes are looked for;
    * ``threshold``: boxes are kept that score more; 0.25 if left out;
    * ``text_threshold``: tokens of a free text that score more make up the
      name of a box; 0.25 if left out.
    """

    places = Places(
        'zero_shot/coco/kpu-vitb',
        'encoder',
        ('teacher',),
        'GroundingDINOTeacher',
    )
    forward_kwargs: ClassVar[set[str]] = {
        'classes',
        'texts',
        'threshold',
        'text_threshold',
    }

    def forward(
        self,
        inputs: Any,
        classes: Sequence[str] | None = None,
        texts: str | None = None,
        threshold: float = 0.25,
        text_threshold: float = 0.25,
    ) -> Any:
        """Detect in a batch.

        Args:
            inputs: The batch.
            classes: As in a call. Defaults to None.
            texts: As in a call. Defaults to None.
            threshold: As in a call. Defaults to 0.25.
            text_threshold: As in a call. Defaults to 0.25.

        Returns:
            MMDetection's samples.

        Raises:
            ValueError: If nothing is asked for, or two things.
        """
        set_text(inputs, read_question(classes, texts, self.model.classes))
        self.model.threshold = threshold
        self.model.text_threshold = text_threshold
        samples = self.model.test_step(inputs)
        for sample in samples:
            keep_better(sample, threshold)
        return samples

    def use_teacher(self, cfg: Config) -> None:
        """Put the GroundingDINO's own image backbone into a config.

        Args:
            cfg: The config, which is changed.
        """
        cfg.model.encoder = None

    def fit_teacher(self, cfg: Config) -> None:
        """Resize as the GroundingDINO's own processor does.

        Args:
            cfg: The config, which is changed.
        """
        size = self.model.decoder.processor.image_processor.size
        for step in cfg.test_dataloader.dataset.pipeline:
            if 'scale' in step:
                step.scale = (size['shortest_edge'], size['longest_edge'])


def keep_better(sample: Any, threshold: float) -> None:
    """Leave out boxes of low scores, and put the best first.

    Args:
        sample: MMDetection's, which is changed.
        threshold: Boxes are kept that score more.
    """
    boxes = sample.pred_instances
    order = boxes.scores.argsort(descending=True, stable=True)
    sample.pred_instances = boxes[order[boxes.scores[order] > threshold]]


def _encode(masks: Any) -> list[dict[str, Any]]:
    """COCO's run-length encoding, as JSON."""
    from mmdet.structures.mask import encode_mask_results

    encoded: list[dict[str, Any]] = encode_mask_results(masks)
    return [dict(m, counts=m['counts'].decode()) for m in encoded]
