"""Interaction block: injector, a span of ViT layers, extractors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..layers.deform_attention import LevelShapes
from .extractor import Extractor
from .injector import Injector


class Geometry(NamedTuple):
    """Where the tokens of one forward pass lie.

    Args:
        num_prefix: Tokens before the patches (CLS and registers).
        grid: Rows and columns of the ViT's patches.
        level_shapes: (H_l, W_l) of strides 8, 16 and 32.
        patch_points: Centres of the patches, (N, 2).
        level_points: Centres of the level cells, (S, 2).
    """

    num_prefix: int
    grid: tuple[int, int]
    level_shapes: LevelShapes
    patch_points: Tensor
    level_points: Tensor


class InteractionBlock(nn.Module):
    """One of the K exchanges between ViT and spatial prior.

    ViT-Adapter (https://arxiv.org/abs/2205.08534), figure 4.

    Args:
        embed_dims: Channels.
        num_levels: Levels of the spatial prior.
        attention: Heads, points and value ratio of both attentions.
        init_gamma: Initial gamma of the injector.
        ffn_ratio: Hidden ratio of the extractors' feed-forward network.
        drop_path: Drop path of the extractors.
        num_extractors: Extractors after the ViT layers. Defaults to 1.
        with_cp: Recompute the block in the backward pass to save memory.
            Defaults to False.
    """

    def __init__(
        self,
        embed_dims: int,
        num_levels: int,
        attention: dict[str, Any],
        init_gamma: float,
        ffn_ratio: float,
        drop_path: float,
        num_extractors: int = 1,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.injector = Injector(
            embed_dims, dict(attention, num_levels=num_levels), init_gamma
        )
        self.extractors = nn.ModuleList(
            Extractor(
                embed_dims,
                dict(attention, num_levels=1),
                ffn_ratio,
                drop_path,
            )
            for _ in range(num_extractors)
        )

    def forward(
        self,
        tokens: Tensor,
        levels: Tensor,
        vit_layers: Callable[[Tensor], Tensor],
        geometry: Geometry,
    ) -> tuple[Tensor, Tensor]:
        """Inject, run the ViT layers, extract.

        Args:
            tokens: All ViT tokens, (B, P + N, C), P prefix tokens first.
            levels: Level tokens, (B, S, C).
            vit_layers: This block's span of ViT layers.
            geometry: Where tokens and levels lie.

        Returns:
            Both after the exchange, shapes kept.
        """
        inputs = (tokens, levels, vit_layers, geometry)
        if self.with_cp and torch.is_grad_enabled():
            out: tuple[Tensor, Tensor] = checkpoint(
                self._exchange, *inputs, use_reentrant=False
            )
            return out
        return self._exchange(*inputs)

    def _exchange(
        self,
        tokens: Tensor,
        levels: Tensor,
        vit_layers: Callable[[Tensor], Tensor],
        geometry: Geometry,
    ) -> tuple[Tensor, Tensor]:
        prefix, patches = tokens.tensor_split([geometry.num_prefix], dim=1)
        patches = self.injector(
            patches, geometry.patch_points, levels, geometry.level_shapes
        )
        tokens = vit_layers(torch.cat((prefix, patches), dim=1))
        for extractor in self.extractors:
            levels = extractor(
                levels,
                geometry.level_points,
                geometry.level_shapes,
                tokens[:, geometry.num_prefix :],
                geometry.grid,
            )
        return tokens, levels


def split_layers(depth: int, blocks: int) -> list[tuple[int, int]]:
    """Share the layers of a ViT among interaction blocks.

    Args:
        depth: Layers.
        blocks: Blocks, each of which takes one layer at least.

    Returns:
        First layer of each block, and the one after its last.

    Raises:
        ValueError: If there are more blocks than layers, or none.
    """
    if not 1 <= blocks <= depth:
        raise ValueError(
            f'num_interactions={blocks}: the sentinel has {depth} layers, '
            f'choose from 1 to {depth}.'
        )
    return [
        (i * depth // blocks, (i + 1) * depth // blocks) for i in range(blocks)
    ]
