"""MaskDINO: a backbone and the Mask DINO head."""

from __future__ import annotations

from typing import Any

from mmdet.models.detectors import SingleStageDetector

from kpu_mm.registry import MODELS

from ..heads.mask_dino import Results


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
        """Put results where MMDetection's metrics look for them.

        Args:
            data_samples: Of the batch.
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
