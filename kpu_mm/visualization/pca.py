"""Feature maps as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def pca_rgb(feature_map: Tensor) -> Tensor:
    """The three main directions of a map as red, green and blue.

    Each direction's sign is fixed (its largest entry is positive) and its
    values are stretched from the 1st to the 99th percentile.

    Args:
        feature_map: (C, H, W).

    Returns:
        (3, H, W) in [0, 1], float32.
    """
    channels, height, width = feature_map.shape
    values = feature_map.flatten(1).T.double()  # (HW, C)
    values = values - values.mean(0)
    _, directions = torch.linalg.eigh(values.T @ values)
    main = directions[:, -3:].flip(1)  # (C, 3)
    strongest = main.abs().argmax(0, keepdim=True)
    main = main * main.gather(0, strongest).sign()
    colours = values @ main  # (HW, 3)
    bounds = torch.tensor(
        [0.01, 0.99], dtype=values.dtype, device=values.device
    )
    low, high = colours.quantile(bounds, dim=0)
    scaled = (colours - low) / (high - low).clamp(min=1e-12)
    colours = scaled.clamp(0, 1).T.reshape(-1, height, width).float()
    return F.pad(colours, (0, 0, 0, 0, 0, 3 - min(3, channels)))


def feature_panel(image: Tensor, maps: Sequence[Tensor]) -> np.ndarray:
    """An image and the PCA of feature maps of it, side by side.

    Args:
        image: Raw RGB in [0, 255], (3, H, W).
        maps: Feature maps, each (C_i, H_i, W_i).

    Returns:
        uint8 RGB, (224, 224 * (1 + maps), 3).
    """
    tiles = [image.float() / 255, *(pca_rgb(m.float()) for m in maps)]
    resized = [
        F.interpolate(tile[None].cpu(), (224, 224), mode='nearest')[0]
        for tile in tiles
    ]
    panel = torch.cat(resized, dim=2).permute(1, 2, 0)
    return np.ascontiguousarray((panel * 255).round().to(torch.uint8).numpy())
