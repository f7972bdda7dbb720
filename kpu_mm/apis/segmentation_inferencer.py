"""Segmentation, zero-shot and with a trained decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from mmengine.config import Config
from mmengine.structures import PixelData
from torch import Tensor

from kpu_mm.models.backbones.base_backbone import check_choice

from .base_inferencer import ImageInferencer
from .classification_inferencer import set_classes
from .label_map import label_map, resize
from .trained_inferencer import TrainedInferencer
from .zero_shot_config import Places
from .zero_shot_inferencer import ZeroShotInferencer, clip_encoder


class _Pixels(ImageInferencer):
    """How MMSegmentation's predictions are made, told and drawn."""

    visualizer_type = 'mmseg.SegLocalVisualizer'
    names: Sequence[str]

    def find_logits(self, inputs: Any) -> list[tuple[Any, Tensor]]:
        """Logits at the size of the network's input, without padding.

        Args:
            inputs: A batch.

        Returns:
            MMSegmentation's samples, each with its logits (K, h, w).
        """
        data = self.model.data_preprocessor(inputs, False)
        samples = data['data_samples']
        metas = [sample.metainfo for sample in samples]
        logits = self.model.inference(data['inputs'], metas)
        height, width = logits.shape[-2:]
        found = []
        for sample, maps in zip(samples, logits, strict=True):
            left, right, top, bottom = sample.get(
                'img_padding_size', sample.get('padding_size', [0] * 4)
            )
            found.append(
                (sample, maps[:, top : height - bottom, left : width - right])
            )
        return found

    def draw(self, rgb: np.ndarray, found: Any) -> np.ndarray:
        """Colour each class; for one class alone, its similarity.

        Args:
            rgb: The image, (H, W, 3) uint8.
            found: MMSegmentation's sample.
        """
        drawn: np.ndarray
        if 'pred_sem_seg' not in found:
            drawn = self.visualizer.draw_featmap(found.scores.data, rgb)
            return drawn
        palette = np.random.default_rng(0).integers(
            0, 256, (len(self.names), 3)
        )
        self.visualizer.dataset_meta = dict(
            classes=self.names, palette=palette.tolist()
        )
        self.visualizer.add_datasample('found', rgb, found, draw_gt=False)
        drawn = self.visualizer.get_image()
        return drawn

    def describe(self, found: Any) -> dict[str, Any]:
        """Label map, names and shares; scores where they were asked for.

        Args:
            found: MMSegmentation's sample.
        """
        result: dict[str, Any] = dict(names=list(self.names))
        if 'pred_sem_seg' in found:
            labels = found.pred_sem_seg.data[0].cpu().numpy()
            pixels = np.bincount(labels.ravel(), minlength=len(self.names))
            result['shares'] = (pixels / labels.size).tolist()
            result['sem_seg'] = labels.astype(np.int32)
        if 'scores' in found:
            result['scores'] = found.scores.data.cpu().numpy()
        return result


class SegmentationInferencer(TrainedInferencer, _Pixels):
    """Pixels by a trained segmentor of MMSegmentation.

    Any of its configs will do, and this package's in
    ``configs/downstream/ade20k``. See :class:`TrainedInferencer` for the
    arguments. A call takes, besides those of :class:`ImageInferencer`:

    * ``score_maps``: 'probability' adds the softmax, a map for each class.
    """

    forward_kwargs: ClassVar[set[str]] = {'score_maps'}

    def forward(self, inputs: Any, score_maps: str | None = None) -> Any:
        """Segment a batch.

        Args:
            inputs: The batch.
            score_maps: As in a call. Defaults to None.

        Returns:
            MMSegmentation's samples; with score_maps they have ``scores``.

        Raises:
            ValueError: If score_maps has another value.
        """
        if score_maps is not None:
            check_choice('score_maps', score_maps, ('probability',))
        found = self.find_logits(inputs)
        for sample, maps in found:
            size = sample.ori_shape
            if len(maps) == 1:  # foreground and background
                scores = resize(maps, size).sigmoid()
                labels = (scores > self.model.decode_head.threshold).int()
            else:
                labels = label_map(maps, size)[None]
                if score_maps is not None:
                    scores = resize(maps, size).softmax(0)
            sample.pred_sem_seg = PixelData(data=labels)
            if score_maps is not None:
                sample.scores = PixelData(data=scores)
        return [sample for sample, _ in found]


class ZeroShotSegmentationInferencer(ZeroShotInferencer, _Pixels):
    """Pixels by names, by a CLIP's dense tokens and its text tower.

    See :class:`ZeroShotInferencer` for the arguments, which the three
    zero-shot Inferencers have in common. A call takes, besides those of
    :class:`ImageInferencer`:

    * ``classes``: names, or a data set of MMSegmentation such as 'ade20k';
      None keeps those of the last call, at first the config's (ADE20K's
      150);
    * ``templates``: prompts with '{}' in the place of the name; None takes
      open_clip's 80;
    * ``score_maps``: 'probability' (softmax over the classes; a sigmoid of
      each for a SigLIP) or 'cosine' (similarity of text and position, in
      [-1, 1]) adds a map for each class; with 'cosine' one class will do,
      whose picture is a heat map.
    """

    places = Places(
        'zero_shot/ade20k/kpu-vitb',
        'backbone',
        ('decode_head', 'clip'),
        'CLIPTeacher',
    )
    forward_kwargs: ClassVar[set[str]] = {
        'classes',
        'templates',
        'score_maps',
    }

    def forward(
        self,
        inputs: Any,
        classes: str | Sequence[str] | None = None,
        templates: Sequence[str] | None = None,
        score_maps: str | None = None,
    ) -> Any:
        """Segment a batch.

        Args:
            inputs: The batch.
            classes: As in a call. Defaults to None.
            templates: As in a call. Defaults to None.
            score_maps: As in a call. Defaults to None.

        Returns:
            MMSegmentation's samples; with score_maps they have ``scores``.

        Raises:
            ValueError: If there is no class, a name that says nothing, or
                one class without ``score_maps='cosine'``.
        """
        if score_maps is not None:
            check_choice('score_maps', score_maps, ('probability', 'cosine'))
        head = self.model.decode_head
        set_classes(head, classes, templates)
        self.names = head.classes
        alone = len(self.names) == 1 and score_maps == 'cosine'
        if alone:
            # MMSegmentation takes one channel for foreground
            head.set_classes([*self.names, *self.names], head.templates)
        self.model.out_channels = head.num_classes
        found = self.find_logits(inputs)
        if alone:
            head.set_classes(self.names, head.templates)
        for sample, maps in found:
            size = sample.ori_shape
            if not alone:
                labels = label_map(maps, size)
                sample.pred_sem_seg = PixelData(data=labels[None])
            if score_maps is not None:
                logits = resize(maps[: len(self.names)], size)
                scores = self._scores(logits, score_maps)
                sample.scores = PixelData(data=scores)
        return [sample for sample, _ in found]

    def _scores(self, logits: Tensor, kind: str) -> Tensor:
        """Of logits (K, H, W)."""
        bank = self.model.decode_head
        if kind == 'probability':
            scores: Tensor = bank.scores(logits.permute(1, 2, 0))
            return scores.permute(2, 0, 1).contiguous()
        return bank.cosine(logits)

    def use_teacher(self, cfg: Config) -> None:
        """Put the CLIP's own image tower into a config.

        Args:
            cfg: The config, which is changed.
        """
        clip_encoder(cfg, cfg.model.decode_head.clip, 'maps')

    def fit_teacher(self, cfg: Config) -> None:
        """Look through windows of the size that the CLIP takes.

        Args:
            cfg: The config, which is changed.
        """
        height, width = self.model.decode_head.teacher.resolution
        window = cfg.model.test_cfg.crop_size[0]
        self.model.test_cfg.update(
            crop_size=(height, width), stride=(height // 2, width // 2)
        )
        for step in cfg.test_dataloader.dataset.pipeline:
            if 'scale' in step:  # as many windows as the config has
                long, short = step.scale
                step.scale = (long, round(short * height / window))
