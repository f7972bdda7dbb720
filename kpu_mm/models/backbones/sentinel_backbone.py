"""What the backbones over a sentinel have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kpu_mm.structures import Features

from ..encoder import level_masks
from .outputs import Outputs
from .sentinel import IMAGENET_MEAN, IMAGENET_STD, Sentinel
from .sentinel_checkpoints import SentinelCheckpoints


class SentinelBackbone(SentinelCheckpoints):
    """A backbone with a sentinel in it, trained or not.

    Images come in as every OpenMMLab backbone takes them, normalised by the
    data preprocessor with ImageNet's mean and standard deviation (RGB);
    :meth:`normalise` does that for raw images.

    Args:
        sentinel: Hub name, local folder or config of the sentinel.
        out_type: 'pyramid', 'summary', 'summary_spatial' or 'features'.
        out_indices: Which maps a pyramid has.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` or None.

    Attributes:
        strides: Pixels of the image per cell of each map.
        embed_dims: Channels of the summary and of each map.
        beside: What the names of parts start with that are no part of a
            student: no distillation trains them, no export holds them.
    """

    mean: Tensor
    std: Tensor
    strides: tuple[int, ...]
    embed_dims: int
    beside: tuple[str, ...] = ()

    def __init__(
        self,
        sentinel: str | dict[str, Any],
        out_type: str,
        out_indices: Sequence[int],
        init_cfg: dict[str, Any] | None,
    ) -> None:
        super().__init__(init_cfg)
        self.outputs = Outputs(out_type, out_indices)
        self.sentinel = Sentinel(sentinel)
        for key, value in (('mean', IMAGENET_MEAN), ('std', IMAGENET_STD)):
            self.register_buffer(
                key, torch.tensor(value).view(3, 1, 1), persistent=False
            )

    def normalise(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Raw RGB in [0, 255] -> what the backbone takes; padding is zero.

        Args:
            images: (B, 3, H, W), uint8 or float.
            mask: (B, H, W) bool, True where the image is; None where all is.
        """
        images = (images.to(self.mean.dtype) - self.mean) / self.std
        return images if mask is None else images * mask.unsqueeze(1)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map that :meth:`encode` gives."""
        return (self.embed_dims,) * len(self.strides)

    @property
    def summary_channels(self) -> int:
        """Channels of the summary that :meth:`encode` gives."""
        return self.embed_dims

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Summary and all maps of raw images.

        Args:
            images: RGB in [0, 255], uint8 or float, (B, 3, H, W).
            mask: True where a pixel is real and not padding, (B, H, W)
                bool; None if all are. Defaults to None.

        Returns:
            Summary (B, C) and maps (B, C, H_i, W_i); with masks of the maps
            if ``mask`` is given.
        """
        # A compiled student has another function as its attribute extract,
        # so what is called here must be looked up on the object.
        features = self.extract(self.normalise(images, mask))
        return features._replace(masks=level_masks(features.maps, mask))

    @abstractmethod
    def extract(self, images: Tensor) -> Features:
        """Summary and all maps of normalised images (B, 3, H, W)."""

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """How deep a parameter lies, for layer-wise learning rates.

        MMPretrain's protocol. Patches and positions of the sentinel are at
        depth 0, its layers from 1; all else is deepest.

        Args:
            param_name: Name of the parameter.
            prefix: What the name has before the backbone's own. Defaults
                to ''.

        Returns:
            The depth, and the number of depths.
        """
        name = param_name.removeprefix(prefix)
        last = self.sentinel.num_layers + 1
        if not name.startswith('sentinel.'):
            return last, last + 1
        return self.sentinel.depth_of(name.removeprefix('sentinel.')), last + 1
