"""Dense pre-training: each cell of a map predicts the digit that it shows.

Contrastive and detection losses alone learn very slowly at first. A cell
therefore predicts the class and the clean upright scan of its digit, which is
64 numbers for each digit instead of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .materials import COLOURS, Glyphs, materials
from .scene_pool import SIZE, Scenes

# Share of a cell that a digit must cover, by stride.
_COVERED = {8: 0.12, 16: 0.08}
_SCAN_WEIGHT = 10.0
# ImageNet, RGB in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(images: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """Normalise images for a model.

    Args:
        images: (B, H, W, 3) uint8.
        mean: Mean of each channel. Defaults to ImageNet's.
        std: Standard deviation of each channel. Defaults to ImageNet's.

    Returns:
        (B, 3, H, W) float32.
    """
    # (B, H, W, 3) -> (B, 3, H, W)
    x = images.permute(0, 3, 1, 2).float() / 255
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1)


def augment(images: Tensor, recolour: bool = False) -> Tensor:
    """Change brightness and contrast of each image at random.

    Args:
        images: (B, H, W, 3) uint8.
        recolour: Whether to change each channel by itself and to permute
            the channels. Defaults to False.

    Returns:
        (B, H, W, 3) uint8.
    """
    number = len(images)
    channels = 3 if recolour else 1
    x = images.float()
    gain = torch.empty(number, 1, 1, channels).uniform_(0.75, 1.25)
    shift = torch.empty(number, 1, 1, channels).uniform_(-25, 25)
    x = x * gain + shift
    if recolour:
        order = torch.rand(number, 3).argsort(1)
        x = x.gather(3, order[:, None, None].expand_as(x))
    return x.clamp(0, 255).to(torch.uint8)


class CellTargets:
    """Assigns to each cell the digit that covers most of it.

    Args:
        batch: Scenes.
        stride: Side of a cell in pixels.

    Attributes:
        shown: Index of the digit in its scene, -1 for none, (B, h, w).
    """

    def __init__(self, batch: Scenes, stride: int) -> None:
        number = batch.digits.shape[1]
        # One mask for each digit, without the background: (B, H, W, 5).
        layers = F.one_hot(batch.instances.long(), number + 1)[..., 1:]
        covered = F.avg_pool2d(layers.permute(0, 3, 1, 2).float(), stride)
        share, shown = covered.max(1)
        self.shown = shown.masked_fill(share < _COVERED[stride], -1)

    def gather(self, values: Tensor) -> Tensor:
        """Spread values of the digits over the cells.

        Args:
            values: One integer for each digit, (B, 5).

        Returns:
            The value of each cell's digit, -1 for none, (B, h, w).
        """
        flat = self.shown.flatten(1)
        found = values.gather(1, flat.clamp(min=0))
        return found.masked_fill(flat < 0, -1).view_as(self.shown)


class CellHeads(nn.Module):
    """Linear heads for class and scan of each cell's digit.

    Args:
        channels: Channels of the map.
        stride: Stride of the map.
        with_digits: Whether the classes are digits; otherwise they are the
            colours. In both cases class 0 is the background.
        glyphs: What the scenes show. Defaults to 'digits'.
    """

    scans: Tensor

    def __init__(
        self, channels: int, stride: int, with_digits: bool, glyphs: Glyphs = 'digits'
    ) -> None:
        super().__init__()
        self.stride = stride
        self.with_digits = with_digits
        classes = 11 if with_digits else 1 + len(COLOURS)
        self.classes = nn.Conv2d(channels, classes, 1)
        self.scan = nn.Conv2d(channels, 64, 1)
        # Without the margin the scans have 8 x 8 pixels.
        scans = torch.from_numpy(materials('train', glyphs).scans)[:, 1:-1, 1:-1]
        flat = scans.flatten(1)  # (N, 8, 8) -> (N, 64)
        self.register_buffer('scans', flat - flat.mean(0), persistent=False)

    def forward(self, features: Tensor, batch: Scenes) -> dict[str, Tensor]:
        """Return the losses of a map.

        Args:
            features: (B, C, h, w).
            batch: Scenes.
        """
        targets = CellTargets(batch, self.stride)
        kinds = batch.digits if self.with_digits else batch.colours
        wanted = targets.gather(kinds) + 1  # 0 is the background
        losses = {f'class{self.stride}': F.cross_entropy(self.classes(features), wanted)}
        shown = targets.shown >= 0
        scans = self.scans[targets.gather(batch.scans)[shown]]
        # (B, 64, h, w) -> (B, h, w, 64) -> (cells with a digit, 64)
        predicted = self.scan(features).permute(0, 2, 3, 1)[shown]
        losses[f'scan{self.stride}'] = _SCAN_WEIGHT * F.mse_loss(predicted, scans)
        return losses


class CentreHead(nn.Module):
    """A linear head for the digits whose centre lies in a cell.

    It suits coarse maps, whose cells may show several digits.

    Args:
        channels: Channels of the map.
        stride: Stride of the map.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.classes = nn.Conv2d(channels, 10, 1)

    def forward(self, features: Tensor, batch: Scenes) -> dict[str, Tensor]:
        """Return the loss of a map.

        Args:
            features: (B, C, h, w).
            batch: Scenes.
        """
        wanted = torch.zeros(len(features), SIZE // self.stride, SIZE // self.stride, 10)
        image, digit = (batch.digits >= 0).nonzero(as_tuple=True)
        boxes = batch.boxes[image, digit]
        x, y = ((boxes[:, :2] + boxes[:, 2:]) // (2 * self.stride)).unbind(1)
        wanted[image, y, x, batch.digits[image, digit]] = 1
        loss = F.binary_cross_entropy_with_logits(
            self.classes(features), wanted.permute(0, 3, 1, 2)
        )
        return {f'centre{self.stride}': 5 * loss}


class DenseHeads(nn.Module):
    """Heads for three maps of strides 8, 16 and 32, for training only.

    Args:
        channels: Channels of the maps.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.of_maps = nn.ModuleList(
            [CellHeads(fine, 8, True), CellHeads(middle, 16, True), CentreHead(coarse, 32)]
        )

    def forward(self, maps: Sequence[Tensor], batch: Scenes) -> dict[str, Tensor]:
        """Return the losses of the maps.

        Args:
            maps: (B, C, h, w), from fine to coarse.
            batch: Scenes.
        """
        losses: dict[str, Tensor] = {}
        for head, features in zip(self.of_maps, maps, strict=True):
            losses |= head(features, batch)
        return losses


class DenseNet(nn.Module):
    """A backbone with dense heads.

    Args:
        backbone: A module whose output has ``feature_maps`` of strides 8, 16
            and 32.
        channels: Channels of the three maps.
    """

    def __init__(self, backbone: Any, channels: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = DenseHeads(channels)

    def forward(self, batch: Scenes) -> dict[str, Tensor]:
        """Return the losses of a batch."""
        maps = self.backbone(normalise(augment(batch.images, True)))
        losses: dict[str, Tensor] = self.heads(maps.feature_maps, batch)
        return losses

    @torch.no_grad()
    def accuracy(self, batch: Scenes) -> dict[str, float]:
        """Return the accuracy on cells that show a digit, by stride."""
        right: dict[int, list[Tensor]] = {8: [], 16: []}
        cells: list[Any] = list(self.heads.of_maps)[:2]
        for start in range(0, len(batch.images), 250):
            part = batch.take(slice(start, start + 250))
            maps = self.backbone(normalise(part.images)).feature_maps
            for head, features in zip(cells, maps, strict=False):
                wanted = CellTargets(part, head.stride).gather(part.digits)
                found = head.classes(features).argmax(1) - 1
                right[head.stride].append((found == wanted)[wanted >= 0])
        return {
            f'cell_accuracy{stride}': torch.cat(parts).float().mean().item()
            for stride, parts in right.items()
        }
