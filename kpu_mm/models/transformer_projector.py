"""Transformers from one model's feature space into another's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features


class TransformerHead(nn.Module):
    """Transformer blocks over an image's tokens, then a linear layer.

    Args:
        channels: Channels of the tokens.
        out_channels: Channels of the projected map.
        out_summary: Channels of the projected summary; None for none. With
            those of the map, the linear layer is the map's.
        num_blocks: Number of blocks.
        num_heads: Heads of a block.
        mlp_ratio: Hidden channels of a block's MLP, per channel.
        init_values: LayerScale at the start; 0 for none.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        out_summary: int | None,
        num_blocks: int,
        num_heads: int,
        mlp_ratio: float,
        init_values: float,
    ) -> None:
        super().__init__()
        options: dict[str, Any] = dict(qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6))
        self.blocks = nn.ModuleList(
            Block(channels, num_heads, mlp_ratio, init_values=init_values, **options)
            for _ in range(num_blocks)
        )
        self.linear = nn.Linear(channels, out_channels)
        self.gives_summary = out_summary is not None
        self.summary_linear: Any = None
        if out_summary not in (None, out_channels):
            self.summary_linear = nn.Linear(channels, out_summary)

    def forward(
        self, summary: Tensor | None, m: Tensor, mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        """Project the summary, if asked for, and the map.

        Args:
            summary: (B, C), or None.
            m: (B, C, H, W).
            mask: Cells that show the image, (B, 1, H, W) bool, or None.

        Returns:
            (B, D') or None, and (B, C', H, W).
        """
        tokens = m.flatten(2).transpose(1, 2)  # (B, C, H, W) -> (B, N, C)
        prefix = 0 if summary is None else 1
        if summary is not None:
            tokens = torch.cat([summary[:, None].to(tokens.dtype), tokens], 1)
        seen = None
        if mask is not None:
            seen = F.pad(mask.flatten(1), (prefix, 0), value=True)
            # softmax over nothing is NaN
            seen = seen | ~seen.any(1, keepdim=True)
            seen = seen[:, None, None]  # (B, N) -> (B, heads, queries, N)
        for block in self.blocks:
            tokens = block(tokens, attn_mask=seen)
        # (B, N, C) -> (B, C', H, W)
        projected = self.linear(tokens[:, prefix:]).transpose(1, 2).unflatten(2, m.shape[-2:])
        if not self.gives_summary:
            return None, projected
        return (self.summary_linear or self.linear)(tokens[:, 0]), projected


@MODELS.register_module()
class TransformerProjector(nn.Module):
    """For each map, transformer blocks over its tokens and the summary.

    DUNE (https://arxiv.org/abs/2503.14405), whose numbers are those of its
    code: what a teacher keeps in a few places may come from anywhere in the
    image. The summary is a token like the map's; it takes part even where the
    teacher has none. Padding is not attended to. Of several maps, the first
    one's tokens give the summary. The time grows with the square of a map's
    cells: meant for a ViT's one map.

    Args:
        in_summary: Channels of the summary; None for no summary.
        out_summary: Channels of the projected summary; None drops it.
        in_channels: Channels of each map, as many as the summary has.
        out_channels: Channels of each projected map.
        num_blocks: Blocks of each map. Defaults to 1.
        num_heads: Heads of a block. Defaults to 12.
        mlp_ratio: Hidden channels of a block's MLP, per channel. Defaults
            to 4.0.
        init_values: LayerScale at the start; 0 for none. Defaults to 1e-4.

    Attributes:
        out_summary: Channels of the projected summary; None if there is none.
        out_channels: Channels of each projected map.
        mixes_summary: Whether projected maps depend on the summary.

    Raises:
        ValueError: If the channels do not fit.
    """

    mixes_summary = True

    def __init__(
        self,
        in_summary: int | None,
        out_summary: int | None,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        num_blocks: int = 1,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        init_values: float = 1e-4,
    ) -> None:
        super().__init__()
        if in_summary is not None and set(in_channels) != {in_summary}:
            raise ValueError(
                f'TransformerProjector: a summary of {in_summary} channels cannot be a token '
                f'beside those of maps with {list(in_channels)}; for terms that project such a '
                "teacher's features, 't2s' and 'rec', choose kpu_mm.MLPProjector."
            )
        if bad := [c for c in in_channels if c % num_heads]:
            raise ValueError(
                f'TransformerProjector: {bad[0]} channels cannot be split into {num_heads} heads; '
                'set num_heads to a divisor.'
            )
        self.out_summary = None if in_summary is None else out_summary
        self.out_channels = tuple(out_channels)
        self.maps = nn.ModuleList(
            TransformerHead(
                a, b, None if i else self.out_summary, num_blocks, num_heads, mlp_ratio, init_values
            )
            for i, (a, b) in enumerate(zip(in_channels, out_channels, strict=True))
        )

    def forward(self, features: Features, mlps: Sequence[int] | None = None) -> Features:
        """Project the summary and each map.

        Args:
            features: Summary (B, D), which may be absent, and maps, each
                (B, C_i, H_i, W_i).
            mlps: For each map, which of the heads projects it. Defaults to
                None, the first map goes through the first one, and so on.

        Returns:
            Summary (B, D') and maps (B, C'_i, H_i, W_i).
        """
        chosen = self.maps if mlps is None else [self.maps[k] for k in mlps]
        masks = features.masks or (None,) * len(features.maps)
        summaries, maps = zip(
            *(
                head(features.summary, m, mask)
                for head, m, mask in zip(chosen, features.maps, masks, strict=True)
            ),
            strict=True,
        )
        summary = next((s for s in summaries if s is not None), None)
        return Features(summary, maps, features.masks)
