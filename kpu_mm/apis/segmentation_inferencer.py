"""Segmentation, zero-shot and with a trained decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from torch import Tensor

from kpu_mm.models.backbones.base_backbone import check_choice
from kpu_mm.models.teachers import CLIPTeacher
from kpu_mm.structures import bilinear

from .base_inferencer import ImageInferencer
from .find_config import Places
from .task_inferencers import TrainedInferencer, ZeroShotInferencer

# Classes whose logits are in memory at the size of the image together. The
# number has no influence on the result.
CHUNK = 8


class _PixelResults(ImageInferencer):
    """Predictions and pictures from MMSegmentation's logits."""

    visualizer_type = 'mmseg.SegLocalVisualizer'
    names: Sequence[str]
    palette: Sequence[Any] | None = None

    def compute_logits(self, inputs: Any) -> list[tuple[Any, Tensor]]:
        """Compute logits at the size of the network's input.

        Args:
            inputs: A batch.

        Returns:
            MMSegmentation's samples, each with its logits (K, h, w), from
            which padding is removed.
        """
        # Not test_step(), which holds all logits at the size of the image.
        data = self.model.data_preprocessor(inputs, False)
        samples = data['data_samples']
        metas = [sample.metainfo for sample in samples]
        logits = self.model.inference(data['inputs'], metas)
        height, width = logits.shape[-2:]
        results = []
        for sample, maps in zip(samples, logits, strict=True):
            # The data preprocessor and a Pad transform call it differently.
            left, right, top, bottom = sample.get(
                'img_padding_size', sample.get('padding_size', [0] * 4)
            )
            results.append((sample, maps[:, top : height - bottom, left : width - right]))
        return results

    def visualize(self, rgb: np.ndarray, result: Any) -> np.ndarray:
        """Colour each class; for one class alone, its similarity.

        Args:
            rgb: The image, (H, W, 3) uint8.
            result: MMSegmentation's sample.
        """
        picture: np.ndarray
        if 'pred_sem_seg' not in result:
            picture = self.visualizer.draw_featmap(result.scores.data, rgb)
            return picture
        # The same colours in each call.
        drawn = np.random.default_rng(0).integers(0, 256, (len(self.names), 3)).tolist()
        self.visualizer.dataset_meta = dict(classes=self.names, palette=self.palette or drawn)
        height, width = rgb.shape[:2]
        if height == width == 1:
            # MMSegmentation takes a mask of one pixel for an index.
            rgb = rgb.repeat(2, axis=1)
            labels = result.pred_sem_seg.data.repeat(1, 1, 2)
            result = type(result)(pred_sem_seg=PixelData(data=labels))
        self.visualizer.add_datasample('found', rgb, result, draw_gt=False)
        picture = self.visualizer.get_image()[:, :width]
        return picture

    def postprocess(self, result: Any) -> dict[str, Any]:
        """Return label map, names and shares, and scores if there are any.

        Args:
            result: MMSegmentation's sample.
        """
        prediction: dict[str, Any] = dict(names=list(self.names))
        if 'pred_sem_seg' in result:
            labels = result.pred_sem_seg.data[0].cpu().numpy()
            pixels = np.bincount(labels.ravel(), minlength=len(self.names))
            prediction['shares'] = (pixels / labels.size).tolist()
            prediction['sem_seg'] = labels.astype(np.int32)
        if 'scores' in result:
            prediction['scores'] = result.scores.data.cpu().numpy()
        return prediction


class SegmentationInferencer(TrainedInferencer, _PixelResults):
    """Pixels by a trained segmentor of MMSegmentation.

    It runs any of MMSegmentation's configs, and this package's in
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
        samples = []
        for sample, logits in self.compute_logits(inputs):
            grid = sample.ori_shape, self.model.align_corners
            # One channel is that of the foreground, as in MMSegmentation.
            if len(logits) == 1:
                scores = resize(logits, *grid).sigmoid()
                labels = (scores > self.model.decode_head.threshold).int()
            else:
                labels = label_map(logits, *grid)[None]
                if score_maps is not None:
                    scores = resize(logits, *grid).softmax(0)
            sample.pred_sem_seg = PixelData(data=labels)
            if score_maps is not None:
                sample.scores = PixelData(data=scores)
            samples.append(sample)
        return samples


class ZeroShotSegmentationInferencer(ZeroShotInferencer, _PixelResults):
    """Pixels of any names, by a CLIP's patch tokens and its text tower.

    `MaskCLIP <https://arxiv.org/abs/2112.01071>`_. See
    :class:`ZeroShotInferencer` for the arguments, which the three zero-shot
    Inferencers have in common. A call takes, besides those of
    :class:`ImageInferencer`:

    * ``classes``: names, or a data set of MMSegmentation such as 'ade20k';
      None keeps those of the last call, at first the config's (ADE20K's
      150);
    * ``templates``: prompts with '{}' in the place of the name; None takes
      open_clip's 80;
    * ``score_maps``: 'probability' (softmax over the classes; a sigmoid of
      each for a SigLIP) or 'cosine' (similarity of text and position, in
      [-1, 1]) adds a map for each class; with 'cosine' one class is enough,
      and its picture is a heat map.
    """

    places = Places('zero_shot/ade20k/kpu-vitb', 'backbone', ('decode_head', 'clip'), CLIPTeacher)
    forward_kwargs: ClassVar[set[str]] = {'classes', 'templates', 'score_maps'}

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
            ValueError: If there is no class, a name without a meaning, or
                one class without ``score_maps='cosine'``.
        """
        if score_maps is not None:
            check_choice('score_maps', score_maps, ('probability', 'cosine'))
        head = self.model.decode_head
        head.set_classes(classes, templates)
        self.names = head.classes
        alone = len(self.names) == 1 and score_maps == 'cosine'
        # MMSegmentation would take a single channel for the foreground, so
        # the class is there twice.
        if alone:
            head.classes = (*self.names, *self.names)
        self.model.out_channels = head.num_classes
        results = self.compute_logits(inputs)
        if alone:
            head.classes = self.names
        for sample, logits in results:
            size = sample.ori_shape
            if not alone:
                labels = label_map(logits, size)
                sample.pred_sem_seg = PixelData(data=labels[None])
            if score_maps is None:
                continue
            scores = resize(logits[: len(self.names)], size)
            if score_maps == 'cosine':
                scores = head.cosine(scores)
            else:
                # (K, H, W) -> (H, W, K) and back
                scores = head.scores(scores.permute(1, 2, 0))
                scores = scores.permute(2, 0, 1).contiguous()
            sample.scores = PixelData(data=scores)
        return [sample for sample, _ in results]

    def adapt_pipeline(self, cfg: Config) -> None:
        """Use windows of the size that the CLIP takes.

        Args:
            cfg: The config, which is changed.
        """
        height, width = self.model.decode_head.teacher.resolution
        window = cfg.model.test_cfg.crop_size[0]
        self.model.test_cfg.update(crop_size=(height, width), stride=(height // 2, width // 2))
        for step in cfg.test_dataloader.dataset.pipeline:
            if 'scale' in step:
                # As many windows as the config has.
                long, short = step.scale
                step.scale = (long, round(short * height / window))


def label_map(logits: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Find the best class at each pixel, in chunks of the classes.

    Args:
        logits: (K, h, w).
        size: Height and width of the image.
        align_corners: As the model resizes. Defaults to False.

    Returns:
        (H, W) int64.
    """
    best, labels = resize(logits[:CHUNK], size, align_corners).max(0)
    for first in range(CHUNK, len(logits), CHUNK):
        value, label = resize(logits[first : first + CHUNK], size, align_corners).max(0)
        # Of equal values the first class wins, as in argmax.
        better = value > best
        best = torch.where(better, value, best)
        labels = torch.where(better, label + first, labels)
    return labels


def resize(logits: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Resize logits bilinearly to the size of the image.

    Args:
        logits: (K, h, w).
        size: Height and width of the image.
        align_corners: As the model resizes. Defaults to False.

    Returns:
        (K, H, W).
    """
    return bilinear(logits[None], (size[0], size[1]), align_corners)[0]
