"""What every teacher promises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kpu_mm.structures import Features

from ..encoder import level_masks, nearest_size, resize_mask
from ..frozen import FrozenModule


class BaseTeacher(FrozenModule):
    """A frozen model that turns raw images into features.

    It owns its input: images of a size it cannot take are resized (never
    cropped), then normalised as ``(x / 255 - mean) / std``, then the padding
    is set to zero. A subclass sets ``summary_channels``, ``channels`` and
    ``strides`` (mostly by :meth:`probe`) and implements :meth:`extract`.

    Args:
        mean: Mean of each RGB channel, in units of [0, 1].
        std: Standard deviation of each RGB channel, in units of [0, 1].
        resolution: The only size (H, W) the model takes; None if it takes
            any. Defaults to None.
        size_divisor: The model takes multiples of this size, its patch.
            Defaults to 1.

    Attributes:
        summary_channels: Channels of the summary; None for a teacher
            without one.
        channels: Channels of each map, from fine to coarse.
        strides: Pixels of the model's input per cell of each map.
        unread: Parts of the names of weights that have no share in what it
            says, and that files may lack.
    """

    summary_channels: int | None
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    unread: tuple[str, ...] = ('mask_token',)
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        resolution: tuple[int, int] | None = None,
        size_divisor: int = 1,
    ) -> None:
        super().__init__()
        for name, values in (('mean', mean), ('std', std)):
            if len(values) != 3 or not all(0 <= v <= 1 for v in values):
                raise ValueError(
                    f'{name} must be three numbers in [0, 1], one for each '
                    f'RGB channel, but is {values}; divide values of the '
                    '[0, 255] scale by 255'
                )
            value = torch.tensor(values, dtype=torch.float32)
            self.register_buffer(name, value.view(3, 1, 1), persistent=False)
        self.resolution = (
            None if resolution is None else (resolution[0], resolution[1])
        )
        self.size_divisor = size_divisor

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Summary and maps of raw images, as every encoder gives them.

        Args:
            images: RGB in [0, 255], uint8 or float, (B, 3, H, W).
            mask: True where a pixel is real and not padding, (B, H, W)
                bool; None if all are. Defaults to None.

        Returns:
            Summary and maps; with masks of the maps if ``mask`` is given.
        """
        # by __call__, which torch.nn.Module.compile() replaces
        features: Features = self(images, mask)
        return features

    @torch.no_grad()
    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """What the teacher says of a batch.

        Args:
            images: Raw RGB in [0, 255], uint8 or float, (B, 3, H, W).
            mask: True where a pixel is real and not padding, (B, H, W)
                bool; None if all are. Defaults to None.

        Returns:
            Summary and maps; with masks of the maps if ``mask`` is given.
        """
        images, mask = self.prepare(images, mask)
        summary, maps = self.extract(images, mask)
        return Features(summary, maps, level_masks(maps, mask))

    def prepare(
        self, images: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Bring raw images into the form the model was trained on.

        Args:
            images: Raw RGB in [0, 255], (B, 3, H, W).
            mask: Real pixels, (B, H, W) bool. Defaults to None.

        Returns:
            The normalised images (B, 3, h, w) and their mask (B, h, w).

        Raises:
            ValueError: If the shapes are not as above.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f'images must be (B, 3, H, W) RGB, got {tuple(images.shape)}'
            )
        expected = (images.shape[0], *images.shape[2:])
        if mask is not None and mask.shape != expected:
            raise ValueError(
                f'mask must be {expected} for these images, got '
                f'{tuple(mask.shape)}'
            )
        images = images.to(self.mean.dtype)
        size = self.input_size(*images.shape[-2:])
        if images.shape[-2:] != size:
            images = F.interpolate(
                images, size, mode='bicubic', antialias=True
            ).clamp(0, 255)
            mask = None if mask is None else resize_mask(mask, size)
        images = (images / 255 - self.mean) / self.std
        if mask is not None:
            images = images.masked_fill(~mask[:, None], 0.0)
        return images, mask

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """The size at which the model sees an image of a given size.

        Args:
            height: Height of the image.
            width: Width of the image.

        Returns:
            Height and width.
        """
        if self.resolution is not None:
            return self.resolution
        return nearest_size(height, width, self.size_divisor)

    @abstractmethod
    def extract(
        self, images: Tensor, mask: Tensor | None
    ) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        """Run the model; gradients are off.

        Args:
            images: Normalised images, (B, 3, H, W).
            mask: Real pixels, (B, H, W) bool, or None.

        Returns:
            The summary (B, D) or None, and the maps (B, C, H, W).
        """

    @torch.no_grad()
    def probe(self, size: int = 128) -> None:
        """Set channels and strides from what the model says of a grey image.

        Args:
            size: Side of the image. Defaults to 128.

        Raises:
            ValueError: If the model gives something other than maps.
        """
        height, width = self.input_size(size, size)
        summary, maps = self.extract(
            self.mean.new_zeros(1, 3, height, width), None
        )
        for index, feature in enumerate(maps):
            if feature.ndim != 4:
                raise ValueError(
                    f'output {index} of {type(self).__name__} is no map '
                    f'(B, C, H, W) but {tuple(feature.shape)}; choose other '
                    'layers of the model'
                )
        self.summary_channels = None if summary is None else summary.shape[-1]
        self.channels = tuple(m.shape[1] for m in maps)
        self.strides = tuple(round(height / m.shape[2]) for m in maps)
