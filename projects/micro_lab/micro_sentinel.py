"""The micro sentinel: a DINOv2 that no class of a digit has trained.

It learns from the composition of the scenes. Each patch predicts where ink is
and in which colour, the clean upright scan behind it, and the group of scans
that look like it. The class token predicts scan and group of the largest
digit. The groups come from the scans alone, so no label of a digit takes part.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from .dense_heads import MEAN, STD, CellHeads, CellTargets, augment, normalise
from .materials import Glyphs
from .scene_pool import SIZE, Scenes

PATCH = 8
SIDE = SIZE // PATCH  # patches in a row
PROTOTYPES = 64
# The layer after which the first ink loss is computed.
_EARLY = 2
_KMEANS_ROUNDS = 30

# Constants of the initial values, chosen on scenes that no training used.
_FREQUENCIES = torch.tensor([1.8, 1.2, 0.8, 0.4])
# Sine and cosine of each frequency, for rows and for columns.
POSITION_CHANNELS = 4 * len(_FREQUENCIES)
_AMPLITUDE = 1.5
_SHARPNESS = 1.7
_NOISE = 0.02
# Steps down and right to the patch that each of eight heads attends to.
_NEIGHBOURS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))


def build_sentinel() -> Dinov2Model:
    """Build a small ViT whose initial values suit a training on few images.

    Some channels hold the positions only, and each head finds one neighbour
    of a patch in them. Attention thus starts as a convolution (`structured
    initialization <https://arxiv.org/abs/2404.01139>`_).
    """
    width = 128
    config = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=4,
        num_attention_heads=8,
        mlp_ratio=3,
        image_size=SIZE,
        patch_size=PATCH,
        initializer_range=width**-0.5,
    )
    model: Any = Dinov2Model(config)
    embeddings = model.embeddings
    positions = embeddings.position_embeddings.data
    positions.zero_()
    # Index 0 is the class token, which has no position.
    positions[0, 1:] = position_table(SIDE, SIDE, width)
    spread_patches_(embeddings.patch_embeddings.projection.weight)
    for layer in model.encoder.layer:
        attention = layer.attention.attention
        neighbour_heads_(attention.query.weight, attention.key.weight, config.num_attention_heads)
    return model


def position_table(rows: int, columns: int, channels: int) -> Tensor:
    """Return sines and cosines of rows and columns in the first channels.

    Args:
        rows: Rows of patches.
        columns: Columns of patches.
        channels: Width of the ViT; the other channels are zero.

    Returns:
        (rows * columns, channels).
    """
    table = torch.zeros(rows * columns, channels)
    parts = []
    for axis in torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing='ij'):
        # (rows, columns) -> (rows * columns, frequencies)
        angles = axis.reshape(-1, 1) * _FREQUENCIES
        parts += [angles.sin(), angles.cos()]
    table[:, :POSITION_CHANNELS] = _AMPLITUDE * torch.cat(parts, 1)
    return table


def neighbour_heads_(query: Tensor, key: Tensor, heads: int) -> None:
    """Make each head attend to one of the eight neighbours of a patch.

    Args:
        query: Weight, (C, C), changed in place.
        key: Weight, (C, C), changed in place.
        heads: Number of heads; each has POSITION_CHANNELS channels or more.
    """
    size = query.shape[0] // heads
    number = len(_FREQUENCIES)
    for head in range(heads):
        q, k = query.data[head * size :][:size], key.data[head * size :][:size]
        for weight in (q, k):
            weight.normal_(0, _NOISE)
        # A rotation turns sin and cos of f x into those of f (x + step).
        for axis, step in enumerate(_NEIGHBOURS[head % len(_NEIGHBOURS)]):
            sin = 2 * axis * number + torch.arange(number)
            cos = sin + number
            turn = _FREQUENCIES * step
            k[sin, sin] = k[cos, cos] = _SHARPNESS
            q[sin, sin] = q[cos, cos] = _SHARPNESS * turn.cos()
            q[sin, cos] = _SHARPNESS * turn.sin()
            q[cos, sin] = -_SHARPNESS * turn.sin()


def spread_patches_(weight: Tensor) -> None:
    """Embed patches at random in the channels without positions.

    Args:
        weight: Weight of the convolution, (C, 3, P, P), changed in place.
    """
    weight.data.normal_(0, weight[0].numel() ** -0.5)
    weight.data[:POSITION_CHANNELS] = 0


def find_prototypes(scans: Tensor, count: int, seed: int = 0) -> Tensor:
    """Group scans that look alike by k-means, without their labels.

    Args:
        scans: (N, D).
        count: Number of groups.
        seed: Seed of the first centres. Defaults to 0.

    Returns:
        The group of each scan, (N,) int64.
    """
    generator = torch.Generator().manual_seed(seed)
    centres = scans[torch.randperm(len(scans), generator=generator)[:count]]
    for _ in range(_KMEANS_ROUNDS):
        groups = torch.cdist(scans, centres).argmin(1)
        sizes = torch.bincount(groups, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, groups, scans)
        means = sums / sizes.clamp(min=1)[:, None]
        # An empty group keeps its centre.
        centres = torch.where(sizes[:, None] == 0, centres, means)
    return torch.cdist(scans, centres).argmin(1)


def patch_ink(batch: Scenes) -> Tensor:
    """Return which pixels of each patch show a digit.

    Args:
        batch: Scenes.

    Returns:
        0 or 1, (B, patches, PATCH * PATCH) float32.
    """
    ink = (batch.instances > 0).float()[:, None]
    # (B, 1, H, W) -> (B, pixels, patches) -> (B, patches, pixels)
    return F.unfold(ink, PATCH, stride=PATCH).transpose(1, 2)


class SentinelNet(nn.Module):
    """The ViT with heads that only the training needs.

    Args:
        model: The ViT.
        glyphs: What the scenes show. Defaults to 'digits'.
    """

    groups: Tensor

    def __init__(self, model: Dinov2Model, glyphs: Glyphs = 'digits') -> None:
        super().__init__()
        self.model = model
        width = model.config.hidden_size
        self.patches = CellHeads(width, PATCH, False, glyphs)
        self.dominant = nn.Linear(width, 64 + PROTOTYPES)
        self.alike = nn.Conv2d(width, 1 + PROTOTYPES, 1)
        self.early_ink = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, PATCH**2))
        self.ink = nn.Linear(width, PATCH**2)
        self.register_buffer(
            'groups', find_prototypes(self.patches.scans, PROTOTYPES), persistent=False
        )

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return class token (B, C) and map (B, C, h, w) of (B, H, W, 3)."""
        tokens = self.model(normalise(images)).last_hidden_state
        return tokens[:, 0], _to_map(tokens)

    def forward(self, batch: Scenes) -> dict[str, Tensor]:
        """Return the losses of a batch."""
        out = self.model(normalise(augment(batch.images)), output_hidden_states=True)
        tokens = out.last_hidden_state
        patches, ink = _to_map(tokens), patch_ink(batch)
        # Absent digits have scan -1 and therefore group -1.
        groups = self.groups[batch.scans.clamp(min=0)]
        groups = groups.masked_fill(batch.scans < 0, -1)
        losses: dict[str, Tensor] = self.patches(patches, batch)
        # Class 0 is the background.
        targets = CellTargets(batch, PATCH).gather(groups) + 1
        losses['alike'] = F.cross_entropy(self.alike(patches), targets)
        for name, found in (
            ('early_ink', self.early_ink(out.hidden_states[_EARLY][:, 1:])),
            ('ink', self.ink(tokens[:, 1:])),
        ):
            losses[name] = 2 * F.binary_cross_entropy_with_logits(found, ink)
        scan, logits = self.dominant(tokens[:, 0]).split([64, PROTOTYPES], 1)
        wanted = batch.scans[:, 0]
        losses['dominant'] = 10 * F.mse_loss(scan, self.patches.scans[wanted])
        losses['dominant_alike'] = F.cross_entropy(logits, groups[:, 0])
        return losses


def _to_map(tokens: Tensor) -> Tensor:
    # without class token: (B, 1 + N, C) -> (B, C, h, w)
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (SIDE, SIDE))


def export_sentinel(model: Dinov2Model, folder: Path) -> None:
    """Write fp16 weights, config, and the input's mean and deviation.

    Args:
        model: The trained ViT.
        folder: The folder to write.
    """
    # A copy, because half() changes the model in place.
    copy.deepcopy(model).eval().half().save_pretrained(folder)
    content = {'image_mean': MEAN, 'image_std': STD}
    path = folder / 'preprocessor_config.json'
    path.write_text(json.dumps(content, indent=2) + '\n')
