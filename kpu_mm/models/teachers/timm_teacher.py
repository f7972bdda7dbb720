"""Any model of timm that shows its intermediate maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features
from kpu_mm.weights.pretrained import stated_normalization
from kpu_mm.weights.timm_models import load_timm

from .base_teacher import BaseTeacher


@MODELS.register_module()
class TimmTeacher(BaseTeacher):
    """Pooled features and intermediate maps of a timm model.

    The summary is ``forward_head(..., pre_logits=True)``; the maps are those
    of ``forward_intermediates``, after the final norm where the model has
    one.

    Args:
        model: Name of a timm model, with a tag for hub weights, such as
            'vit_base_patch14_reg4_dinov2.lvd142m'.
        checkpoint: Weights of the whole model, classifier included, in a
            local file; None takes the tag's from the hub. Defaults to None.
        indices: Blocks or stages of the maps; an int takes the last n.
            Defaults to 1.
        mean: Mean in units of [0, 1]; None takes the model's. Defaults to
            None.
        std: Standard deviation, as ``mean``. Defaults to None.
        resolution: Resize every image to this (H, W), and interpolate the
            positions of a model that takes one size only; None keeps that
            size, and the images' for other models. Defaults to None.
        options: More arguments of ``timm.create_model``, such as
            ``dict(dynamic_img_size=True)`` for a ViT that interpolates its
            positions to any size. Defaults to None.
        summary: Whether the pooled features are the summary; else there is
            none. Defaults to True.

    Raises:
        RuntimeError: If the weights don't fill the model.
        ValueError: If the model is unknown or has no maps.
    """

    def __init__(
        self,
        model: str,
        checkpoint: str | None = None,
        indices: int | Sequence[int] = 1,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        resolution: tuple[int, int] | None = None,
        options: dict[str, Any] | None = None,
        summary: bool = True,
    ) -> None:
        options = dict(options or {})
        stated_normalization(mean, std)  # both, or neither
        default = timm.get_pretrained_cfg(model.partition('.')[0])
        # a convolutional network, say, takes any size and has no such argument
        if resolution is not None and (default is None or default.fixed_input_size):
            options = dict(options, img_size=resolution)
        built = load_timm(model, checkpoint, options)
        if not hasattr(built, 'forward_intermediates'):
            raise ValueError(f"timm's '{model}' has no forward_intermediates; choose another model")
        config = built.pretrained_cfg
        any_size = options.get('dynamic_img_size', False)
        if config.get('fixed_input_size') and not any_size:
            # (3, H, W) of its training, if no other was asked for
            resolution = resolution or tuple(config['input_size'][1:])
        # NaFlexViT calls it embeds
        embed = getattr(built, 'patch_embed', getattr(built, 'embeds', None))
        patch = getattr(embed, 'patch_size', None)
        super().__init__(
            mean or config['mean'],
            std or config['std'],
            resolution,
            patch[0] if isinstance(patch, tuple) else 1,
        )
        self.indices = indices if isinstance(indices, int) else list(indices)
        self.model = built
        self.summary = summary
        self.probe()

    def extract(self, images: Tensor, mask: Tensor | None) -> Features:
        """Run the model.

        Args:
            images: Normalised images, (B, 3, H, W).
            mask: Not used: padding is zero and part of the image.

        Returns:
            Pooled features (B, D) or None, and the maps (B, C, H, W).
        """
        # norm=True: as the model's own head gets its features
        model: Any = self.model
        last, maps = model.forward_intermediates(
            images, indices=self.indices, norm=True, output_fmt='NCHW'
        )
        summary = model.forward_head(last, pre_logits=True) if self.summary else None
        return Features(summary, tuple(maps))
