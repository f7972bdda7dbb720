"""Features of images of several sizes as one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .features import Features


def pad_features(features: Sequence[Features], masked: bool) -> Features:
    """Join the features of images of several sizes.

    Args:
        features: Of one image or more each, without masks.
        masked: Give masks, even where all maps are of one size.

    Returns:
        The batch; smaller maps are padded with zeros, bottom and right.
    """
    first = features[0]
    levels = list(zip(*(item.maps for item in features), strict=True))
    summary = (
        None
        if first.summary is None
        else torch.cat([item.summary for item in features])  # type: ignore[misc]
    )
    masks = None
    if masked:
        masks = tuple(
            _pad([torch.ones_like(m[:, :1], dtype=torch.bool) for m in level])
            for level in levels
        )
    return Features(summary, tuple(map(_pad, levels)), masks)


def _pad(maps: Sequence[Tensor]) -> Tensor:
    """Join maps (B_i, C, h_i, w_i) to (B, C, H, W)."""
    if len({m.shape[-2:] for m in maps}) == 1:
        return torch.cat(list(maps))
    height = max(m.shape[-2] for m in maps)
    width = max(m.shape[-1] for m in maps)
    count = sum(len(m) for m in maps)
    batch = maps[0].new_zeros(count, maps[0].shape[1], height, width)
    at = 0
    for m in maps:
        batch[at : at + len(m), :, : m.shape[-2], : m.shape[-1]] = m
        at += len(m)
    return batch
