"""DINOv2, DINOv2 with registers, and DINOv3."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features
from kpu_mm.weights.hub import fetch_folder
from kpu_mm.weights.pretrained import read_normalization

from ..vits import TransformersViT
from .base_teacher import BaseTeacher


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
        vit = TransformersViT(source)
        if not (kind := vit.model.config.model_type).startswith('dino'):
            raise ValueError(
                f"'{source}' is a {kind!r} model, and no vision transformer of DINO; use a "
                'kpu_mm.TransformersTeacher.'
            )
        patch = vit.patch_size
        if resolution and any(side % patch for side in resolution):
            raise ValueError(
                f'resolution {resolution} must be a multiple of the patch '
                f'of {patch}: the map would not have its shape'
            )
        mean, std = read_normalization(fetch_folder(source), mean, std)
        super().__init__(mean, std, resolution, patch)
        self.model = vit.model
        # In a tuple, as nn.Module would register the weights a second time.
        self._vit = (vit,)
        self.summary_channels = vit.embed_dims
        self.channels = (vit.embed_dims,)
        self.strides = (patch,)

    def extract(self, images: Tensor, mask: Tensor | None) -> Features:
        """Run the ViT.

        Args:
            images: Normalised images, (B, 3, H, W).
            mask: Not used: padding is zero and takes part in attention.

        Returns:
            CLS token (B, C) and the map of patch tokens (B, C, H, W).
        """
        # The images have a size that the ViT takes: it does not resize them.
        (vit,) = self._vit
        summary, m = vit(images)
        return Features(summary, (m,))
