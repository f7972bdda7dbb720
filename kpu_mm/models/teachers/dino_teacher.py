"""DINOv2, DINOv2 with registers, and DINOv3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import (
    Dinov2Model,
    Dinov2WithRegistersModel,
    DINOv3ViTModel,
)

from kpu_mm.registry import MODELS
from kpu_mm.weights.hub import fetch_folder
from kpu_mm.weights.pretrained import load_transformers, read_config

from .base_teacher import BaseTeacher, to_map
from .normalization import read_normalization

_FAMILY: dict[str, Any] = {
    'dinov2': Dinov2Model,
    'dinov2_with_registers': Dinov2WithRegistersModel,
    'dinov3_vit': DINOv3ViTModel,
}


@MODELS.register_module()
class DINOTeacher(BaseTeacher):
    """A ViT of the DINO family.

    `DINOv2 <https://arxiv.org/abs/2304.07193>`_,
    `registers <https://arxiv.org/abs/2309.16588>`_,
    `DINOv3 <https://arxiv.org/abs/2508.10104>`_. The summary is the CLS
    token and the map the patch tokens, both after the final norm. Any size
    is resized to the nearest multiple of the patch.

    Args:
        source: Folder of a transformers model, or its name on the hub, such
            as 'facebook/dinov2-base'.
        mean: Mean in units of [0, 1]; None reads it from the folder's
            preprocessor_config.json. Defaults to None.
        std: Standard deviation, as ``mean``. Defaults to None.
        resolution: Resize every image to this (H, W), which must be a
            multiple of the patch; None keeps its size. Defaults to None.

    Raises:
        ValueError: If the model is of another family.
    """

    def __init__(
        self,
        source: str,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resolution: tuple[int, int] | None = None,
    ) -> None:
        folder = fetch_folder(source)
        family = read_config(folder).get('model_type')
        if family not in _FAMILY:
            raise ValueError(
                f"'{source}' is a model of type '{family}', but DINOTeacher "
                f'takes {sorted(_FAMILY)}; use TransformersTeacher'
            )
        cls = _FAMILY[family]
        config = cls.config_class.from_pretrained(
            folder, trust_remote_code=False
        )
        patch = config.patch_size
        if resolution and any(side % patch for side in resolution):
            raise ValueError(
                f'resolution {resolution} must be a multiple of the patch '
                f'of {patch}: the model drops the rest of an image'
            )
        mean, std = read_normalization(folder, mean, std)
        super().__init__(mean, std, resolution, patch)
        # only masked pre-training reads the mask token
        self.model = load_transformers(cls, folder, may_miss=('mask_token',))
        self.num_prefix_tokens = 1 + getattr(config, 'num_register_tokens', 0)
        self.summary_channels = config.hidden_size
        self.channels = (config.hidden_size,)
        self.strides = (patch,)

    def extract(
        self, images: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the ViT.

        Args:
            images: Normalised images, (B, 3, H, W).
            mask: Not used: padding is zero and takes part in attention.

        Returns:
            CLS token (B, C) and the map of patch tokens (B, C, H, W).
        """
        tokens = self.model(images).last_hidden_state  # (B, 1+R+N, C)
        height, width = images.shape[-2:]
        grid = (height // self.size_divisor, width // self.size_divisor)
        patches = tokens[:, self.num_prefix_tokens :]
        return tokens[:, 0], (to_map(patches, grid),)
