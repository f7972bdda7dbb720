"""What all backbones of this package have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from kpu_mm.structures import Features

from ..layers.feature_pyramid import STRIDES

# ImageNet's statistics of RGB in [0, 255], with which DINO, ResNets and
# OpenMMLab's configs normalise images.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

# 'summary_spatial' averages the map of stride 16, the one of four whose
# cells are closest to the patches of a ViT.
POOLED = 2


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless an option has one of its values.

    Args:
        name: The option.
        value: Its value.
        choices: Its values.
    """
    if value not in choices:
        raise ValueError(f'{name}={value!r}: choose from {tuple(choices)}.')


class Outputs:
    """Choice among the features of a backbone.

    Args:
        kind: 'pyramid', 'summary', 'summary_spatial', or 'features'.
        indices: Which of the four maps a pyramid has.

    Raises:
        ValueError: If there is no such kind or map.
    """

    def __init__(self, kind: str, indices: Sequence[int]) -> None:
        kinds = ('pyramid', 'summary', 'summary_spatial', 'features')
        check_choice('out_type', kind, kinds)
        if not indices or not set(indices) <= {0, 1, 2, 3}:
            raise ValueError(
                f'out_indices={tuple(indices)}: choose from 0, 1, 2 and '
                '3 (strides 4, 8, 16 and 32).'
            )
        self.kind = kind
        self.indices = tuple(indices)

    def select(self, features: Features) -> tuple[Any, ...]:
        """Take from features what was chosen.

        Args:
            features: Summary (B, C) and four maps (B, C, H_i, W_i), or one
                of a ViT's patches.

        Returns:
            The maps, or one tensor: (B, C) for 'summary', (B, 2 C) for
            'summary_spatial'; for 'features' all as it is.
        """
        if self.kind == 'features':
            return features
        if self.kind == 'pyramid':
            return tuple(features.maps[i] for i in self.indices)
        assert features.summary is not None
        if self.kind == 'summary':
            return (features.summary,)
        # (B, C, H, W) -> (B, C)
        m = features.maps[POOLED if len(features.maps) > 1 else 0]
        return (torch.cat([features.summary, m.mean((-2, -1))], 1),)


class BaseBackbone(BaseModule):
    """A backbone of OpenMMLab that is an :class:`Encoder`, too.

    Its :meth:`forward` takes what every OpenMMLab backbone takes, images
    normalised by the data preprocessor with ImageNet's mean and standard
    deviation (RGB); :meth:`encode` takes raw images.

    Args:
        out_type: 'pyramid', 'summary', 'summary_spatial' or 'features'.
        out_indices: Which maps a pyramid has.
        init_cfg: Initialisation as in MMEngine.

    Attributes:
        strides: Pixels of the image per cell of each map.
        channels: Channels of each map.
        summary_channels: Channels of the summary.
        embed_dims: Channels of each level of a pyramid.
        levels: What makes a pyramid of the maps; None if they are one.
    """

    strides: tuple[int, ...]
    embed_dims: int
    mean: Tensor
    std: Tensor

    def __init__(
        self, out_type: str, out_indices: Sequence[int], init_cfg: dict[str, Any] | None
    ) -> None:
        super().__init__(init_cfg)
        self.outputs = Outputs(out_type, out_indices)
        self.levels: nn.Module | None = None
        for key, value in (('mean', IMAGENET_MEAN), ('std', IMAGENET_STD)):
            # (3,) -> (3, 1, 1), to broadcast over (B, 3, H, W)
            self.register_buffer(key, torch.tensor(value).view(3, 1, 1), persistent=False)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map that :meth:`extract` gives."""
        return (self.embed_dims,) * len(self.strides)

    @property
    def summary_channels(self) -> int:
        """Channels of the summary that :meth:`extract` gives."""
        return self.embed_dims

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each tensor that :meth:`forward` gives."""
        summary = self.summary_channels
        return {
            'pyramid': (self.embed_dims,) * len(self.outputs.indices),
            'features': self.channels,
            'summary': (summary,),
            'summary_spatial': (2 * summary,),
        }[self.outputs.kind]

    @property
    def feature_info(self) -> Any:
        """Channels, stride and name of each map, as timm's FeatureInfo."""
        from timm.models import FeatureInfo

        pyramid = self.outputs.kind == 'pyramid'
        strides = STRIDES if pyramid else self.strides
        channels = (self.embed_dims,) * len(STRIDES) if pyramid else self.channels
        info = [
            dict(num_chs=count, reduction=stride, module=f'stride{stride}')
            for count, stride in zip(channels, strides, strict=True)
        ]
        return FeatureInfo(info, self.outputs.indices if pyramid else tuple(range(len(info))))

    def forward(self, images: Tensor) -> tuple[Any, ...]:
        """Features as OpenMMLab's necks and heads take them.

        Args:
            images: Normalised images, (B, 3, H, W).

        Returns:
            For ``out_type='pyramid'`` the maps of ``out_indices``, each
            (B, C, ceil(H / stride), ceil(W / stride)); for 'summary' one
            tensor (B, C); for 'summary_spatial' one tensor (B, 2 C); for
            'features' what :meth:`extract` gives.
        """
        features = self.extract(images)
        # A KPUBackbone's maps are a pyramid already.
        if self.levels is None or self.outputs.kind != 'pyramid':
            return self.outputs.select(features)
        size = (images.shape[-2], images.shape[-1])
        pyramid: tuple[Tensor, ...] = self.levels(features.maps, size)
        return pyramid

    @abstractmethod
    def extract(self, images: Tensor) -> Features:
        """Summary and all maps of normalised images (B, 3, H, W)."""

    @abstractmethod
    def encode(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Summary and all maps of raw images, as any :class:`Encoder`.

        Args:
            images: RGB in [0, 255], uint8 or float, (B, 3, H, W).
            mask: True where a pixel is real and not padding, (B, H, W)
                bool; None if all are. Defaults to None.
        """
