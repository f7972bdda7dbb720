"""KPUConfig: an exported student's config.json, for transformers.

It is apart from the models, so that who reads a configuration does not import
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig
from transformers.utils.backbone_utils import (
    BackboneConfigMixin,
    get_aligned_output_features_output_indices,
)

STAGES = ('stage1', 'stage2', 'stage3', 'stage4')


class KPUConfig(BackboneConfigMixin, PretrainedConfig):
    """What transformers builds a student from.

    As ``backbone_config`` of UPerNet, Mask2Former, DETR and the like it gives
    a backbone of random weights; ``AutoBackbone.from_pretrained`` gives the
    trained one. By default it is KPU's student (https://arxiv.org/abs/2508.14707)
    over DINOv2 ViT-B/14.

    Args:
        backbone: Arguments of a ``kpu_mm.KPUBackbone`` or
            ``kpu_mm.ViTBackbone``, with its ``type``. Defaults to None, those
            of KPU's student.
        sentinel_config: Configuration of the sentinel, with ``model_type``.
            Defaults to None, that of DINOv2 ViT-B/14.
        frozen: What is not trained: 'sentinel', 'all', or 'none'. Defaults to
            'sentinel'.
        out_features: Which of 'stage1' to 'stage4', strides 4 to 32, a
            backbone gives. Defaults to None, all.
        out_indices: The same by numbers from 0 to 3. Defaults to None, all.
        **others: What else ``config.json`` has, and arguments of
            ``PretrainedConfig``.
    """

    model_type = 'kpu'

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        sentinel_config: dict[str, Any] | None = None,
        frozen: str = 'sentinel',
        out_features: Sequence[str] | None = None,
        out_indices: Sequence[int] | None = None,
        **others: Any,
    ) -> None:
        # to_dict() writes it, but it is no choice
        others.pop('stage_names', None)
        super().__init__(**others)
        # 'sentinel' is where an export has its weights
        self.backbone = dict(type='kpu_mm.KPUBackbone', sentinel='sentinel') | (backbone or {})
        # The positions of the published weights are those of 518 pixels.
        self.sentinel_config = sentinel_config or dict(
            model_type='dinov2', image_size=518, patch_size=14
        )
        self.frozen = frozen
        self.stage_names = list(STAGES)
        if out_features is None and out_indices is None:
            out_features = STAGES
        self._out_features, self._out_indices = get_aligned_output_features_output_indices(
            out_features=None if out_features is None else list(out_features),
            out_indices=None if out_indices is None else list(out_indices),
            stage_names=self.stage_names,
        )
