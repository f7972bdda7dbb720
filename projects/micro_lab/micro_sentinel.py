"""The micro sentinel: a DINOv2 that has seen no digit's class.

It learns from what scenes are composed of: each patch tells where ink is,
in which colour, gives back the clean upright scan behind it and names the
group of scans that look like it; the class token does so for the largest
digit. No class of a digit takes part, and the groups come from the scans
alone.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model

from .dense_heads import CellHeads, CellTargets, augment, normalise
from .prototypes import find_prototypes
from .scene_pool import SIZE, PoolBatch
from .vit_init import neighbour_heads_, position_table, spread_patches_

PATCH = 8
SIDE = SIZE // PATCH
PROTOTYPES = 64
# the layer after which ink must be found
_EARLY = 2


def build_sentinel() -> Dinov2Model:
    """A random ViT that learns from few images."""
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
    positions[0, 1:] = position_table(SIDE, SIDE, width)
    spread_patches_(embeddings.patch_embeddings.projection.weight)
    for layer in model.encoder.layer:
        attention = layer.attention.attention
        neighbour_heads_(
            attention.query.weight,
            attention.key.weight,
            config.num_attention_heads,
        )
    return model


def patch_ink(batch: PoolBatch) -> Tensor:
    """Which pixels of each patch show a digit.

    Args:
        batch: Scenes.

    Returns:
        0 or 1, (B, patches, PATCH * PATCH) float32.
    """
    ink = (batch.instances > 0).float()[:, None]
    return F.unfold(ink, PATCH, stride=PATCH).transpose(1, 2)


class SentinelNet(nn.Module):
    """The ViT and heads that are thrown away.

    Args:
        model: The ViT.
    """

    groups: Tensor

    def __init__(self, model: Dinov2Model) -> None:
        super().__init__()
        self.model = model
        width = model.config.hidden_size
        self.patches = CellHeads(width, PATCH, with_digits=False)
        self.dominant = nn.Linear(width, 64 + PROTOTYPES)
        self.alike = nn.Conv2d(width, 1 + PROTOTYPES, 1)
        self.early_ink = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, PATCH**2)
        )
        self.ink = nn.Linear(width, PATCH**2)
        self.register_buffer(
            'groups',
            find_prototypes(self.patches.scans, PROTOTYPES),
            persistent=False,
        )

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class token (B, C) and map (B, C, h, w) of images (B, H, W, 3)."""
        tokens = self.model(normalise(images)).last_hidden_state
        return tokens[:, 0], _to_map(tokens)

    def forward(self, batch: PoolBatch) -> dict[str, Tensor]:
        """Losses of a batch."""
        out = self.model(
            normalise(augment(batch.images)), output_hidden_states=True
        )
        tokens = out.last_hidden_state
        patches, ink = _to_map(tokens), patch_ink(batch)
        targets = CellTargets(batch, PATCH)
        losses = self.patches(patches, batch)
        losses['alike'] = F.cross_entropy(
            self.alike(patches), targets.of(self._groups(batch.scans)) + 1
        )
        for name, found in (
            ('early_ink', self.early_ink(out.hidden_states[_EARLY][:, 1:])),
            ('ink', self.ink(tokens[:, 1:])),
        ):
            losses[name] = 2 * F.binary_cross_entropy_with_logits(found, ink)
        return losses | self._dominant(tokens[:, 0], batch.scans[:, 0])

    def _dominant(self, summary: Tensor, scans: Tensor) -> dict[str, Tensor]:
        scan, logits = self.dominant(summary).split([64, PROTOTYPES], 1)
        return {
            'dominant': 10 * F.mse_loss(scan, self.patches.scans[scans]),
            'dominant_alike': F.cross_entropy(logits, self.groups[scans]),
        }

    def _groups(self, scans: Tensor) -> Tensor:
        """The groups of scans, -1 for none."""
        found = self.groups[scans.clamp(min=0)]
        return found.masked_fill(scans < 0, -1)


def _to_map(tokens: Tensor) -> Tensor:
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (SIDE, SIDE))
