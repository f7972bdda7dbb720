"""Dense pre-training: every cell says which digit it shows, and its shape.

Contrastive and detection losses alone begin to learn very slowly. Besides
the class, a cell's features must give back the clean upright scan behind
what it shows: 64 numbers for each digit instead of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .materials import COLOURS, materials
from .scene_pool import SIZE, PoolBatch

# share of a cell that a digit must cover, by stride
_COVERED = {8: 0.12, 16: 0.08}
_SCAN_WEIGHT = 10.0
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(
    images: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> Tensor:
    """Bring images (B, H, W, 3) uint8 into the form of a model's input."""
    x = images.permute(0, 3, 1, 2).float() / 255
    return (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(
        3, 1, 1
    )


def augment(images: Tensor, recolour: bool = False) -> Tensor:
    """Change brightness and contrast of each image at random.

    Args:
        images: (B, H, W, 3) uint8.
        recolour: Also change the colours, of each channel by itself and by
            exchanging them. Defaults to False.

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
    """What the cells of a stride show.

    Args:
        batch: Scenes.
        stride: Pixels of a cell.

    Attributes:
        shown: Which digit of the scene, from 0; -1 for none, (B, h, w).
    """

    def __init__(self, batch: PoolBatch, stride: int) -> None:
        number = batch.digits.shape[1]
        layers = F.one_hot(batch.instances.long(), number + 1)[..., 1:]
        covered = F.avg_pool2d(layers.permute(0, 3, 1, 2).float(), stride)
        share, shown = covered.max(1)
        self.shown = shown.masked_fill(share < _COVERED[stride], -1)
        self._batch = batch

    def of(self, values: Tensor) -> Tensor:
        """What a number of each digit (B, 5) is in each cell, -1 for none."""
        flat = self.shown.flatten(1)
        found = values.gather(1, flat.clamp(min=0))
        return found.masked_fill(flat < 0, -1).view_as(self.shown)


class CellHeads(nn.Module):
    """Linear heads that are thrown away after the pre-training.

    Args:
        channels: Channels of the map.
        stride: Its stride.
        with_digits: Whether classes are digits; else digit or not, colour.
    """

    scans: Tensor

    def __init__(self, channels: int, stride: int, with_digits: bool) -> None:
        super().__init__()
        self.stride = stride
        self.with_digits = with_digits
        classes = 11 if with_digits else 1 + len(COLOURS)
        self.classes = nn.Conv2d(channels, classes, 1)
        self.scan = nn.Conv2d(channels, 64, 1)
        scans = torch.from_numpy(materials('train').scans)[:, 1:-1, 1:-1]
        flat = scans.flatten(1)
        self.register_buffer('scans', flat - flat.mean(0), persistent=False)

    def forward(self, features: Tensor, batch: PoolBatch) -> dict[str, Tensor]:
        """Losses of a map.

        Args:
            features: (B, C, h, w).
            batch: Scenes.
        """
        targets = CellTargets(batch, self.stride)
        kinds = batch.digits if self.with_digits else batch.colours
        wanted = targets.of(kinds) + 1
        losses = {
            f'class{self.stride}': F.cross_entropy(
                self.classes(features), wanted
            )
        }
        shown = targets.shown >= 0
        scans = self.scans[targets.of(batch.scans)[shown]]
        predicted = self.scan(features).permute(0, 2, 3, 1)[shown]
        losses[f'scan{self.stride}'] = _SCAN_WEIGHT * F.mse_loss(
            predicted, scans
        )
        return losses


class Centres(nn.Module):
    """Which digits have their centre in a cell; for coarse maps.

    Args:
        channels: Channels of the map.
        stride: Its stride.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.classes = nn.Conv2d(channels, 10, 1)

    def forward(self, features: Tensor, batch: PoolBatch) -> dict[str, Tensor]:
        """Losses of a map.

        Args:
            features: (B, C, h, w).
            batch: Scenes.
        """
        wanted = torch.zeros(
            len(features), SIZE // self.stride, SIZE // self.stride, 10
        )
        image, digit = (batch.digits >= 0).nonzero(as_tuple=True)
        boxes = batch.boxes[image, digit]
        x, y = ((boxes[:, :2] + boxes[:, 2:]) // (2 * self.stride)).unbind(1)
        wanted[image, y, x, batch.digits[image, digit]] = 1
        loss = F.binary_cross_entropy_with_logits(
            self.classes(features), wanted.permute(0, 3, 1, 2)
        )
        return {f'centre{self.stride}': 5 * loss}


class DenseHeads(nn.Module):
    """Heads for three maps of strides 8, 16 and 32.

    Args:
        channels: Channels of the maps.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.of_maps = nn.ModuleList(
            [
                CellHeads(fine, 8, True),
                CellHeads(middle, 16, True),
                Centres(coarse, 32),
            ]
        )

    def forward(
        self, maps: Sequence[Tensor], batch: PoolBatch
    ) -> dict[str, Tensor]:
        """Losses of the maps.

        Args:
            maps: (B, C, h, w) from fine to coarse.
            batch: Scenes.
        """
        losses: dict[str, Tensor] = {}
        for head, features in zip(self.of_maps, maps, strict=True):
            losses |= head(features, batch)
        return losses


class DenseNet(nn.Module):
    """A backbone with three maps and its heads.

    Args:
        backbone: Images to an output with ``feature_maps`` of strides 8, 16
            and 32.
        channels: Their channels.
    """

    def __init__(self, backbone: Any, channels: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = DenseHeads(channels)

    def forward(self, batch: PoolBatch) -> dict[str, Tensor]:
        """Losses of a batch."""
        maps = self.backbone(normalise(augment(batch.images, True)))
        losses: dict[str, Tensor] = self.heads(maps.feature_maps, batch)
        return losses

    @torch.no_grad()
    def accuracy(self, batch: PoolBatch) -> dict[str, float]:
        """Share of cells with a digit whose class is right, by stride."""
        right: dict[int, list[Tensor]] = {8: [], 16: []}
        cells: list[Any] = list(self.heads.of_maps[:2])
        for start in range(0, len(batch.images), 250):
            part = PoolBatch(*(x[start : start + 250] for x in batch))
            maps = self.backbone(normalise(part.images)).feature_maps
            for head, features in zip(cells, maps, strict=False):
                wanted = CellTargets(part, head.stride).of(part.digits)
                found = head.classes(features).argmax(1) - 1
                right[head.stride].append((found == wanted)[wanted >= 0])
        return {
            f'cell_accuracy{stride}': torch.cat(parts).float().mean().item()
            for stride, parts in right.items()
        }
