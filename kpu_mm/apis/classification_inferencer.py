"""Classification, zero-shot and with a trained head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from mmengine.config import Config

from kpu_mm.models.teachers import CLIPTeacher

from .base_inferencer import ImageInferencer
from .find_config import Places
from .task_inferencers import TrainedInferencer, ZeroShotInferencer


class _ClassResults(ImageInferencer):
    """Predictions and pictures from MMPretrain's samples."""

    postprocess_kwargs: ClassVar[set[str]] = {'topk'}
    visualizer_type = 'mmpretrain.UniversalVisualizer'
    names: Sequence[str]

    def visualize(self, rgb: np.ndarray, result: Any) -> np.ndarray:
        """Write the best class into the image.

        Args:
            rgb: The image, (H, W, 3) uint8.
            result: MMPretrain's sample.
        """
        picture: np.ndarray = self.visualizer.visualize_cls(rgb, result, self.names, draw_gt=False)
        return picture

    def postprocess(self, result: Any, topk: int | None = None) -> dict[str, Any]:
        """List classes and their scores.

        Args:
            result: MMPretrain's sample.
            topk: Number of classes to keep; None for all. Defaults to None.
        """
        # Stable, so that classes with equal scores keep their order.
        scores, labels = result.pred_score.sort(descending=True, stable=True)
        labels = labels[:topk].tolist()
        return dict(
            labels=labels,
            scores=scores[:topk].tolist(),
            names=[self.names[label] for label in labels],
        )


class ClassificationInferencer(TrainedInferencer, _ClassResults):
    """Classes by a trained classifier of MMPretrain.

    It runs any of MMPretrain's configs, and this package's linear probes.
    See :class:`TrainedInferencer` for the arguments. A call takes, besides
    those of :class:`ImageInferencer`:

    * ``topk``: number of classes to keep; None for all.
    """


class ZeroShotClassificationInferencer(ZeroShotInferencer, _ClassResults):
    """Classes of any names, by an image's summary and a CLIP's text tower.

    `CLIP <https://arxiv.org/abs/2103.00020>`_. See
    :class:`ZeroShotInferencer` for the arguments, which the three zero-shot
    Inferencers have in common. A call takes, besides those of
    :class:`ImageInferencer`:

    * ``classes``: names, or 'imagenet' for open_clip's; None keeps those of
      the last call, at first the config's (ImageNet's 1000);
    * ``templates``: prompts with '{}' in the place of the name; None takes
      open_clip's 80;
    * ``topk``: number of classes to keep; None for all.
    """

    places = Places('zero_shot/imagenet/kpu-vitb', 'backbone', ('head', 'clip'), CLIPTeacher)
    forward_kwargs: ClassVar[set[str]] = {'classes', 'templates'}

    def forward(
        self,
        inputs: Any,
        classes: str | Sequence[str] | None = None,
        templates: Sequence[str] | None = None,
    ) -> Any:
        """Classify a batch.

        Args:
            inputs: The batch.
            classes: As in a call. Defaults to None.
            templates: As in a call. Defaults to None.

        Returns:
            MMPretrain's samples.

        Raises:
            ValueError: If there is no class, a name without a meaning, or
                templates without classes.
        """
        self.model.head.set_classes(classes, templates)
        self.names = self.model.head.classes
        return self.model.test_step(inputs)

    def adapt_pipeline(self, cfg: Config) -> None:
        """Resize, crop and pad as the CLIP's own preprocessing does.

        Args:
            cfg: The config, which is changed.
        """
        teacher = self.model.head.teacher
        stated = teacher.visual.preprocess_cfg
        resize = dict(
            type='kpu_mm.OpenClipResize',
            size=teacher.resolution,
            **{key: stated[key] for key in ('interpolation', 'resize_mode', 'fill_color')},
        )
        dataset = cfg.test_dataloader.dataset
        load, *_, pack = dataset.pipeline
        dataset.pipeline = [load, resize, pack]
