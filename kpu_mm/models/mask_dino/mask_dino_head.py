"""MaskDINO, a detector, and its head with losses and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.detectors import SingleStageDetector
from mmengine.model import BaseModule
from torch import Tensor

from kpu_mm.registry import MODELS

from .criterion import Criterion, HeadOutputs
from .denoising import Denoising, DenoisingQueries
from .postprocessor import Postprocessor, Results
from .predictor import Predictions, Predictor
from .query_decoder import QueryDecoder
from .targets import make_target


@MODELS.register_module()
class MaskDINOHead(BaseModule):
    """Mask DINO over any backbone with maps at strides 4, 8, 16 and 32.

    Mask DINO (https://arxiv.org/abs/2206.02777).

    Args:
        pixel_decoder: Config of :class:`MaskDINOPixelDecoder`.
        queries: Config of :class:`SelectedQueries` or
            :class:`LearnedQueries` without ``embed_dims``.
        num_things_classes: Classes with instances. Defaults to 80.
        num_stuff_classes: Classes without, numbered after them. Defaults to
            0.
        decoder: Arguments of :class:`QueryDecoder` besides ``embed_dims``
            and ``num_levels``. Defaults to None.
        classes: Config of :class:`FocalClasses` or :class:`SoftmaxClasses`
            without ``num_classes``; None takes the former. Defaults to
            None.
        denoising: Arguments of :class:`Denoising` besides ``num_classes``
            and ``embed_dims``; None trains without. Defaults to None.
        train_cfg: Arguments of :class:`Criterion` besides ``classes``.
            Defaults to None.
        test_cfg: Arguments of :class:`Postprocessor` besides ``classes``
            and ``num_things``. Defaults to None.
        init_cfg: MMEngine's initialisation config. Defaults to None.
    """

    def __init__(
        self,
        pixel_decoder: dict[str, Any],
        queries: dict[str, Any],
        num_things_classes: int = 80,
        num_stuff_classes: int = 0,
        decoder: dict[str, Any] | None = None,
        classes: dict[str, Any] | None = None,
        denoising: dict[str, Any] | None = None,
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        num_classes = num_things_classes + num_stuff_classes
        self.pixel_decoder = MODELS.build(pixel_decoder)
        dims = self.pixel_decoder.embed_dims
        self.queries = MODELS.build(queries, default_args=dict(embed_dims=dims))
        self.decoder = QueryDecoder(dims, self.pixel_decoder.num_levels, **(decoder or {}))
        self.classes = MODELS.build(
            classes or dict(type='kpu_mm.FocalClasses'), default_args=dict(num_classes=num_classes)
        )
        self.predictor = Predictor(dims, self.classes.num_outputs)
        self.denoising = None if denoising is None else Denoising(num_classes, dims, **denoising)
        self.criterion = Criterion(self.classes, **(train_cfg or {}))
        self.postprocess = Postprocessor(self.classes, num_things_classes, **(test_cfg or {}))

    def forward(
        self, maps: Sequence[Tensor], denoising: DenoisingQueries | None = None
    ) -> HeadOutputs:
        """All predictions of a batch.

        Args:
            maps: The backbone's, (B, C_i, H_i, W_i) at strides 4, 8, 16, 32.
            denoising: Extra queries of a training step. Defaults to None.
        """
        features = self.pixel_decoder(maps)
        content, references, selected = self.queries(features, self.predictor)
        blocked = None
        if denoising is not None:
            # denoising queries first: (B, D + N, C) and (B, D + N, 4)
            content = torch.cat((denoising.content, content), 1)
            references = torch.cat((denoising.references, references), 1)
            blocked = denoising.blocked
        states, starts = self.decoder(
            content, references.sigmoid(), features, self.predictor.box, blocked
        )
        # sets[0] predicts from the queries before any layer.
        sets = [self.predictor.predict(content, starts[0])]
        sets += map(self.predictor.refine, states, starts)
        # (B, D + N, ...) -> (B, N, ...) and (B, D, ...)
        count = content.shape[1] - self.queries.num_queries
        return HeadOutputs(
            tuple(Predictions(*(p[:, count:] for p in s)) for s in sets),
            tuple(Predictions(*(p[:, :count] for p in s)) for s in sets),
            selected,
            features.masks,
        )

    def loss(self, x: Sequence[Tensor], batch_data_samples: list[Any]) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            x: The backbone's maps.
            batch_data_samples: With ``gt_instances`` and, for stuff,
                ``gt_sem_seg``.
        """
        targets = [
            make_target(sample, self.num_things_classes, self.num_stuff_classes, x[0].device)
            for sample in batch_data_samples
        ]
        denoising = None
        if self.denoising is not None:
            denoising = self.denoising(targets, self.queries.num_queries)
        losses: dict[str, Tensor] = self.criterion(self(x, denoising), targets, denoising)
        return losses

    def predict(
        self, x: Sequence[Tensor], batch_data_samples: list[Any], rescale: bool = True
    ) -> list[Results]:
        """Results of a batch.

        Args:
            x: The backbone's maps.
            batch_data_samples: With the metadata of each image.
            rescale: Whether to give results at the size of the original
                images. Defaults to True.
        """
        outputs = self(x)
        return [
            self.postprocess(
                Predictions(*(part[i] for part in outputs.matching[-1])),
                outputs.mask_features[i],
                sample.metainfo,
                rescale,
            )
            for i, sample in enumerate(batch_data_samples)
        ]


@MODELS.register_module()
class MaskDINO(SingleStageDetector):
    """Detector with instance, semantic and panoptic results.

    Mask DINO (https://arxiv.org/abs/2206.02777). Takes the arguments of
    MMDetection's ``SingleStageDetector``; ``bbox_head`` is a
    :class:`MaskDINOHead`.
    """

    def add_pred_to_datasample(
        self, data_samples: list[Any], results_list: list[Results]
    ) -> list[Any]:
        """Store results under the names that MMDetection's metrics read.

        Args:
            data_samples: Those of the batch.
            results_list: The head's, in the same order.
        """
        for sample, results in zip(data_samples, results_list, strict=True):
            if results.instances is not None:
                sample.pred_instances = results.instances
            if results.semantic is not None:
                sample.pred_sem_seg = results.semantic
            if results.panoptic is not None:
                sample.pred_panoptic_seg = results.panoptic
        return data_samples
