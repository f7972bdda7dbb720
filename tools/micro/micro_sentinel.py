"""The micro sentinel: a DINOv2 that has seen no digit's class.

It learns from what scenes are composed of: each patch gives back the clean
upright scan behind what it shows, and whether and in which colour; the class
token does so for the largest digit. No evaluation asks for that, and no
class of a digit takes part.
"""

from __future__ import annotations

import torch.nn.functional as F
from dense_heads import CellHeads, augment, normalise
from scene_pool import SIZE, PoolBatch
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model
from vit_init import position_table, similar_tokens_

PATCH = 8


def build_sentinel() -> Dinov2Model:
    """A random ViT that learns from few images."""
    config = Dinov2Config(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        mlp_ratio=3,
        image_size=SIZE,
        patch_size=PATCH,
    )
    model = Dinov2Model(config)
    embeddings = model.embeddings
    side, width = SIZE // PATCH, config.hidden_size
    embeddings.position_embeddings.data[0, 1:] = position_table(
        side, side, width
    )
    projection = embeddings.patch_embeddings.projection.weight
    nn.init.normal_(projection, std=projection[0].numel() ** -0.5)
    for layer in model.encoder.layer:
        attention = layer.attention.attention
        similar_tokens_(
            attention.query.weight,
            attention.key.weight,
            config.num_attention_heads,
        )
    return model


class SentinelNet(nn.Module):
    """The ViT and heads that are thrown away.

    Args:
        model: The ViT.
    """

    def __init__(self, model: Dinov2Model) -> None:
        super().__init__()
        self.model = model
        width = model.config.hidden_size
        self.patches = CellHeads(width, PATCH, with_digits=False)
        self.dominant = nn.Linear(width, 64)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class token (B, C) and map (B, C, h, w) of images (B, H, W, 3)."""
        tokens = self.model(normalise(images)).last_hidden_state
        side = SIZE // PATCH
        patches = tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        return tokens[:, 0], patches

    def forward(self, batch: PoolBatch) -> dict[str, Tensor]:
        """Losses of a batch."""
        summary, patches = self.features(augment(batch.images))
        losses = self.patches(patches, batch)
        scans = self.patches.scans[batch.scans[:, 0]]
        losses['dominant'] = 10 * F.mse_loss(self.dominant(summary), scans)
        return losses
