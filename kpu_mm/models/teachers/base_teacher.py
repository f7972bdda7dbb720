"""What every teacher promises, and where a model keeps its teachers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from kpu_mm.registry import MODELS, find_model
from kpu_mm.structures import Features

from ..encoder import level_masks, nearest_size, resize_mask
from ..frozen import ExternalModule, FrozenModule


class BaseTeacher(FrozenModule):
    """A frozen :class:`Encoder`.

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
        interpolation: How images are resized, 'bicubic' or 'bilinear'.
        learns: Whether gradients reach the weights, as in a
            :class:`TeacherBackbone` that is not frozen.
    """

    interpolation = 'bicubic'
    learns = False
    summary_channels: int | None
    channels: tuple[int, ...]
    strides: tuple[int, ...]
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
                    f'{name} must be three numbers in [0, 1], one for each RGB channel, but is '
                    f'{values}; divide values of the [0, 255] scale by 255'
                )
            # (3,) -> (3, 1, 1), to broadcast over (B, 3, H, W)
            value = torch.tensor(values, dtype=torch.float32).view(3, 1, 1)
            self.register_buffer(name, value, persistent=False)
        # A config's list would never equal the shape of an image
        self.resolution = None if resolution is None else tuple(resolution)
        self.size_divisor = size_divisor

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Summary and maps of raw images, without gradients unless it learns.

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

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """What :meth:`encode` gives.

        Args:
            images: Raw RGB in [0, 255], uint8 or float, (B, 3, H, W).
            mask: Real pixels, (B, H, W) bool. Defaults to None, all.
        """
        images, mask = self.prepare(images, mask)
        learns = self.learns and torch.is_grad_enabled()
        with torch.set_grad_enabled(learns), self.in_autocast(images.device) as teacher:
            features = teacher.extract(images.to(teacher.mean.dtype), mask)
        return features._replace(masks=level_masks(features.maps, mask))

    def prepare(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
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
            raise ValueError(f'images must be (B, 3, H, W) RGB, got {tuple(images.shape)}')
        expected = (images.shape[0], *images.shape[2:])
        if mask is not None and mask.shape != expected:
            raise ValueError(f'mask must be {expected} for these images, got {tuple(mask.shape)}')
        images = images.to(self.mean.dtype)
        size = self.input_size(*images.shape[-2:])
        if images.shape[-2:] != size:
            # Antialiased, as the models' own processors resize (PIL); bicubic
            # overshoots the range of RGB.
            images = F.interpolate(images, size, mode=self.interpolation, antialias=True)
            images = images.clamp(0, 255)
            mask = None if mask is None else resize_mask(mask, size)
        images = (images / 255 - self.mean) / self.std
        # last: to the model padding is zero after normalisation, not black
        if mask is not None:
            images = images.masked_fill(~mask[:, None], 0.0)
        return images, mask

    def input_size(self, height: int, width: int) -> tuple[int, ...]:
        """The size at which the model gets an image of a given size.

        Args:
            height: Height of the image.
            width: Width of the image.

        Returns:
            Height and width.
        """
        return self.resolution or nearest_size(height, width, self.size_divisor)

    @abstractmethod
    def extract(self, images: Tensor, mask: Tensor | None) -> Features:
        """Run the model; gradients are off unless it learns.

        Args:
            images: Normalised images, (B, 3, H, W).
            mask: Real pixels, (B, H, W) bool, or None. Padding is zero; only
                a model that takes a mask makes more use of it.

        Returns:
            The summary (B, D) or None, and the maps (B, C, H, W), without
            masks.
        """

    @torch.no_grad()
    def probe(self, size: int = 128) -> None:
        """Set channels and strides from the features of a grey image.

        Args:
            size: Side of the image. Defaults to 128.

        Raises:
            ValueError: If the model gives something other than maps.
        """
        # zero after normalisation
        grey = self.mean.new_zeros(1, 3, *self.input_size(size, size))
        summary, maps, _ = self.extract(grey, None)
        for index, feature in enumerate(maps):
            if feature.ndim != 4:
                raise ValueError(
                    f'output {index} of {type(self).__name__} is no map (B, C, H, W) but '
                    f'{tuple(feature.shape)}; choose other layers of the model'
                )
        self.summary_channels = None if summary is None else summary.shape[-1]
        self.channels = tuple(m.shape[1] for m in maps)
        # rounded, as a model may pad its maps
        self.strides = tuple(round(grey.shape[2] / m.shape[2]) for m in maps)


class TeacherBank(ExternalModule, Mapping[str, BaseTeacher]):
    """Named teachers, invisible to whatever walks the modules of a model.

    The owner's ``state_dict()``, ``parameters()``, optimiser, DDP wrapper
    and moving average never meet a teacher; teachers follow it to a device.

    Args:
        teachers: Name to config of a teacher. A name is a non-empty string
            without dots, and no attribute of ``nn.ModuleDict``: what belongs
            to a teacher is kept in one.

    Raises:
        ValueError: If a name or type is wrong.
    """

    # A mapping has no hash, which nn.Module needs to walk its modules.
    __hash__ = nn.Module.__hash__

    def __init__(self, teachers: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        for name in teachers:
            if not isinstance(name, str) or not name or '.' in name:
                raise ValueError(
                    'the name of a teacher must be a non-empty string '
                    f'without dots, but is {name!r}'
                )
            if hasattr(nn.ModuleDict(), name):
                raise ValueError(
                    f'a teacher cannot be named {name!r}, which is an '
                    'attribute of torch.nn.ModuleDict; choose another name.'
                )
        self._teachers = {name: build_teacher(name, config) for name, config in teachers.items()}

    def __getitem__(self, name: str) -> BaseTeacher:
        return self._teachers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._teachers)

    def __len__(self) -> int:
        return len(self._teachers)

    def __repr__(self) -> str:
        kinds = [f'{k}={type(v).__name__}' for k, v in self.items()]
        return f'TeacherBank({", ".join(kinds)})'

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # a copy of the student, such as its moving average, shares teachers
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        for teacher in self.values():
            teacher._apply(fn)
        return self


def build_teacher(name: str, config: Mapping[str, Any]) -> BaseTeacher:
    """Build a teacher, and nothing else.

    Args:
        name: Its name, for the error.
        config: Its config.

    Raises:
        ValueError: If the type is that of no registered teacher.
    """
    # The config may come out of an exported folder: MODELS.build would import
    # whatever an unregistered type spells.
    kind = config.get('type')
    found = find_model(kind, BaseTeacher)
    if found is None:
        known = sorted(
            f'kpu_mm.{key}'
            for key, value in MODELS.module_dict.items()
            if isinstance(value, type) and issubclass(value, BaseTeacher)
        )
        raise ValueError(
            f"teacher '{name}' has type {kind!r}, which is no teacher; known are {known}"
        )
    teacher: BaseTeacher = MODELS.build(dict(config, type=found))
    return teacher
