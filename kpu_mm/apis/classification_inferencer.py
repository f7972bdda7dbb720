"""Classification, zero-shot and with a trained head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from mmengine.config import Config

from .base_inferencer import ImageInferencer
from .trained_inferencer import TrainedInferencer
from .zero_shot_config import Places
from .zero_shot_inferencer import ZeroShotInferencer, clip_encoder


class _Classes(ImageInferencer):
    """How MMPretrain's predictions are told and drawn."""

    postprocess_kwargs: ClassVar[set[str]] = {'topk'}
    visualizer_type = 'mmpretrain.UniversalVisualizer'
    names: Sequence[str]

    def draw(self, rgb: np.ndarray, found: Any) -> np.ndarray:
        """Write the best class into the image.

        Args:
            rgb: The image, (H, W, 3) uint8.
            found: MMPretrain's sample.
        """
        drawn: np.ndarray = self.visualizer.visualize_cls(
            rgb, found, self.names, draw_gt=False
        )
        return drawn

    def describe(self, found: Any, topk: int | None = None) -> dict[str, Any]:
        """Classes and their scores.

        Args:
            found: MMPretrain's sample.
            topk: How many of the best; None for all. Defaults to None.
        """
        scores, labels = found.pred_score.sort(descending=True, stable=True)
        labels = labels[:topk].tolist()
        return dict(
            labels=labels,
            scores=scores[:topk].tolist(),
            names=[self.names[label] for label in labels],
        )


class ClassificationInferencer(TrainedInferencer, _Classes):
    """Classes by a trained classifier of MMPretrain.

    Any of its configs will do, and this package's linear probes. See
    :class:`TrainedInferencer` for the arguments. A call takes, besides those
    of :class:`ImageInferencer`:

    * ``topk``: how many of the best classes to tell; None for all.
    """


class ZeroShotClassificationInferencer(ZeroShotInferencer, _Classes):
    """Classes of any names, by an image's summary and a CLIP's text tower.

    See :class:`ZeroShotInferencer` for the arguments, which the three
    zero-shot Inferencers have in common. A call takes, besides those of
    :class:`ImageInferencer`:

    * ``classes``: names, or 'imagenet' for open_clip's; None keeps those of
      the last call, at first the config's (ImageNet's 1000);
    * ``templates``: prompts with '{}' in the place of the name; None takes
      open_clip's 80;
    * ``topk``: how many of the best classes to tell; None for all.
    """

    places = Places(
        'zero_shot/imagenet/kpu-vitb',
        'backbone',
        ('head', 'clip'),
        'CLIPTeacher',
    )
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
            ValueError: If there is no class, a name that says nothing, or
                templates without classes.
        """
        set_classes(self.model.head, classes, templates)
        self.names = self.model.head.classes
        return self.model.test_step(inputs)

    def use_teacher(self, cfg: Config) -> None:
        """Put the CLIP's own image tower into a config.

        Args:
            cfg: The config, which is changed.
        """
        clip_encoder(cfg, cfg.model.head.clip, 'summary')

    def fit_teacher(self, cfg: Config) -> None:
        """Resize, and crop where it does, as the CLIP was trained.

        Args:
            cfg: The config, which is changed.
        """
        teacher = self.model.head.teacher
        height, width = teacher.resolution
        pillow = dict(backend='pillow', interpolation='bicubic')
        if teacher.visual.preprocess_cfg['resize_mode'] == 'squash':
            steps = [dict(type='Resize', scale=(width, height), **pillow)]
        else:
            edge = dict(type='ResizeEdge', scale=min(height, width), **pillow)
            steps = [edge, dict(type='CenterCrop', crop_size=(height, width))]
        dataset = cfg.test_dataloader.dataset
        load, *_, pack = dataset.pipeline
        dataset.pipeline = [load, *steps, pack]


def set_classes(
    head: Any,
    classes: str | Sequence[str] | None,
    templates: Sequence[str] | None,
) -> None:
    """Change what a head over a text bank asks for.

    Args:
        head: The head.
        classes: Names; None changes nothing.
        templates: Prompts, for these names.

    Raises:
        ValueError: If there are templates without names.
    """
    if classes is not None:
        head.set_classes(classes, templates)
    elif templates is not None:
        raise ValueError('templates belong to classes; pass these too.')
