"""MaskDINOHead: pixel decoder, queries, decoder; loss and predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from kpu_mm.registry import MODELS

from .postprocessor import Results
from .structures import DenoisingQueries, HeadOutputs


@MODELS.register_module()
class MaskDINOHead(BaseModule):
    """Mask DINO over any four-level backbone.

    Mask DINO (https://arxiv.org/abs/2206.02777).

    Args:
        num_things_classes: Classes with instances. Defaults to 80.
        num_stuff_classes: Classes without, numbered after them. Defaults to
            0.
        pixel_decoder: Config of :class:`MaskDINOPixelDecoder`.
        queries: Config of :class:`SelectedQueries` or
            :class:`LearnedQueries`.
        decoder: Arguments of :class:`QueryDecoder` besides ``embed_dims``
            and ``num_levels``.
        classes: Config of :class:`FocalClasses` or :class:`SoftmaxClasses`.
        denoising: Arguments of :class:`Denoising` besides ``num_classes``
            and ``embed_dims``; None trains without.
        train_cfg: Arguments of :class:`Criterion` besides ``class_loss``.
        test_cfg: Arguments of :class:`Postprocessor` besides ``classes``
            and ``num_things``.
        init_cfg: MMEngine's initialisation config. Defaults to None.
    """

    # modules: pixel_decoder, queries, decoder, predictor, denoising

    def forward(
        self,
        maps: Sequence[Tensor],
        denoising: DenoisingQueries | None = None,
    ) -> HeadOutputs:
        """All predictions of a batch.

        Args:
            maps: The backbone's, (B, C_i, H_i, W_i) at strides 4, 8, 16, 32.
            denoising: Extra queries of a training step.
        """
        raise NotImplementedError

    def loss(
        self, x: Sequence[Tensor], batch_data_samples: list[Any]
    ) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            x: The backbone's maps.
            batch_data_samples: With ``gt_instances`` and, for stuff,
                ``gt_sem_seg``.
        """
        raise NotImplementedError

    def predict(
        self,
        x: Sequence[Tensor],
        batch_data_samples: list[Any],
        rescale: bool = True,
    ) -> list[Results]:
        """Results of a batch.

        Args:
            x: The backbone's maps.
            batch_data_samples: Of which the metadata is read.
            rescale: Whether to give results at the size of the original
                images. Defaults to True.
        """
        raise NotImplementedError
