"""Detection, zero-shot and with a trained decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from mmengine.config import Config
from PIL.Image import Resampling

from kpu_mm.models.teachers import GroundingDINOTeacher

from .base_inferencer import ImageInferencer
from .find_config import Places
from .task_inferencers import TrainedInferencer, ZeroShotInferencer


class _BoxResults(ImageInferencer):
    """Predictions and pictures from MMDetection's samples."""

    visualizer_type = 'mmdet.DetLocalVisualizer'
    names: Sequence[str] = ()
    palette: Sequence[Any] | None = None

    def visualize(self, rgb: np.ndarray, result: Any) -> np.ndarray:
        """Draw boxes, and masks if there are any.

        Args:
            rgb: The image, (H, W, 3) uint8.
            result: MMDetection's sample.
        """
        self.visualizer.dataset_meta = dict(classes=self.names, palette=self.palette)
        # The threshold was applied before; zero-shot scores may be low.
        self.visualizer.add_datasample('found', rgb, result, draw_gt=False, pred_score_thr=-1.0)
        picture: np.ndarray = self.visualizer.get_image()
        return picture

    def postprocess(self, result: Any) -> dict[str, Any]:
        """List boxes, scores and names, and masks if there are any.

        Args:
            result: MMDetection's sample.
        """
        prediction: dict[str, Any] = {}
        # A panoptic detector may give no boxes.
        if 'pred_instances' in result:
            boxes = result.pred_instances.numpy()
            prediction |= dict(
                bboxes=boxes.bboxes.tolist(),
                scores=boxes.scores.tolist(),
                labels=boxes.labels.tolist(),
                names=boxes.label_names,
            )
            if 'masks' in boxes:
                prediction['masks'] = _encode(boxes.masks)
        for key in ('sem_seg', 'panoptic_seg'):
            if f'pred_{key}' in result:
                # MMDetection calls both maps sem_seg, (1, H, W).
                pixels = result.get(f'pred_{key}').sem_seg[0]
                prediction[key] = pixels.cpu().numpy().astype(np.int32)
        return prediction

    def detect(self, inputs: Any, threshold: float) -> Any:
        """Run the detector, and keep the better boxes, the best first.

        Args:
            inputs: The batch.
            threshold: Boxes are kept that score more.

        Returns:
            MMDetection's samples, whose boxes have ``label_names``.
        """
        samples = self.model.test_step(inputs)
        for sample in samples:
            if 'pred_instances' not in sample:
                continue
            boxes = sample.pred_instances
            # Detectors with a prompt name their boxes themselves.
            if 'label_names' not in boxes:
                boxes.label_names = [self.names[i] for i in boxes.labels]
            # Stable, so that boxes with equal scores keep their order.
            order = boxes.scores.argsort(descending=True, stable=True)
            order = order[boxes.scores[order] > threshold]
            sample.pred_instances = boxes[order]
        return samples


def _encode(masks: Any) -> list[dict[str, Any]]:
    """Write masks in COCO's run-length encoding, as JSON."""
    from mmdet.structures.mask import encode_mask_results

    encoded: list[dict[str, Any]] = encode_mask_results(masks)
    # pycocotools gives bytes, which are no JSON.
    return [dict(m, counts=m['counts'].decode()) for m in encoded]


class DetectionInferencer(TrainedInferencer, _BoxResults):
    """Boxes and masks by a trained detector of MMDetection.

    It runs any of MMDetection's configs, and this package's in
    ``configs/downstream/coco``. See :class:`TrainedInferencer` for the
    arguments. A call takes, besides those of :class:`ImageInferencer`:

    * ``threshold``: boxes are kept that score more; 0.3 if left out;
    * ``classes`` or ``texts``: names or one free text, the prompt of a
      detector that takes one, such as MMDetection's GroundingDINO.

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
            set_prompt(inputs, classes, texts)
        return self.detect(inputs, threshold)


class ZeroShotDetectionInferencer(ZeroShotInferencer, _BoxResults):
    """Boxes for any names or a free text, by a GroundingDINO's decoder.

    `GroundingDINO <https://arxiv.org/abs/2303.05499>`_. See
    :class:`ZeroShotInferencer` for the arguments, which the three zero-shot
    Inferencers have in common. A call takes, besides those of
    :class:`ImageInferencer`:

    * ``classes``: class names; or
    * ``texts``: one free text, whose phrases are grounded in every image;
      without either the config's classes are used;
    * ``threshold``: boxes are kept that score more; 0.25 if left out;
    * ``text_threshold``: tokens of a free text that score more make up the
      name of a box; 0.25 if left out. A box without any is named by the
      phrase, up to a full stop, of its best token.
    """

    places = Places('zero_shot/coco/kpu-vitb', 'encoder', ('teacher',), GroundingDINOTeacher)
    forward_kwargs: ClassVar[set[str]] = {'classes', 'texts', 'threshold', 'text_threshold'}

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
            ValueError: If there is no prompt, or two of them.
        """
        set_prompt(inputs, classes, texts, self.model.classes)
        self.model.threshold = threshold
        self.model.text_threshold = text_threshold
        return self.detect(inputs, threshold)

    def use_teacher(self, cfg: Config) -> None:
        """Keep the GroundingDINO's own image backbone.

        Args:
            cfg: The config, which is changed.
        """
        cfg.model.encoder = None

    def adapt_pipeline(self, cfg: Config) -> None:
        """Resize as the GroundingDINO's own processor does.

        Args:
            cfg: The config, which is changed.
        """
        processor = self.model.decoder.processor.image_processor
        for step in cfg.test_dataloader.dataset.pipeline:
            # The transform that resizes is the only one with a scale.
            if 'scale' in step:
                size = processor.size
                step.scale = (size['shortest_edge'], size['longest_edge'])
                step.interpolation = Resampling(processor.resample).name.lower()


def set_prompt(
    inputs: Any,
    classes: Sequence[str] | None,
    texts: str | None,
    default: Sequence[str] | None = None,
) -> None:
    """Give a detector the prompt for all images of a batch.

    Args:
        inputs: The batch, which is changed.
        classes: Names, or None.
        texts: A free text, or None.
        default: Names if there is neither. Defaults to None.

    Raises:
        ValueError: If there is no prompt, or two of them.
    """
    if classes is not None and texts is not None:
        raise ValueError('pass classes or texts, not both.')
    if texts is not None and not isinstance(texts, str):
        raise ValueError('texts is one free text for all images; pass a list of names as classes.')
    classes = default if classes is None else classes
    if texts is None and (classes is None or isinstance(classes, str)):
        raise ValueError(
            "say what to look for: classes=['cat', 'remote control'], or "
            "texts='a cat beside a remote control'."
        )
    # MMDetection's detectors split a text into phrases, but take custom
    # entities as they are.
    prompt = tuple(classes or ()) if texts is None else texts
    meta = dict(text=prompt, custom_entities=texts is None)
    for sample in inputs['data_samples']:
        sample.set_metainfo(meta)
