"""A ladder of projectors: every block of the student takes part."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from .mlp_projector import build_mlp, project


class Ladder(nn.ModuleList):
    """One MLP for each block; their outputs are summed.

    Args:
        in_channels: Channels of all blocks together.
        out_channels: Channels of the sum.
        rungs: Number of blocks.
        hidden: Hidden channels of all rungs but the last.
        last_hidden: Hidden channels of the last one.
        init_std: Standard deviation of the initial weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        rungs: int,
        hidden: int,
        last_hidden: int,
        init_std: float,
    ) -> None:
        if in_channels % rungs:
            raise ValueError(
                f'LadderProjector: {in_channels} channels are not those of '
                f'{rungs} blocks; set `rungs` to the number of `blocks` of '
                'the student, a kpu_mm.ViTBackbone.'
            )
        super().__init__(
            build_mlp(
                in_channels // rungs,
                last_hidden if i == rungs - 1 else hidden,
                out_channels,
            )
            for i in range(rungs)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=init_std)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Project the blocks' features and sum.

        Args:
            x: Those of one block after another's, (..., rungs * C).

        Returns:
            (..., C').
        """
        parts = x.chunk(len(self), dim=-1)
        return reduce(
            torch.add,
            (mlp(part) for mlp, part in zip(self, parts, strict=True)),
        )


@MODELS.register_module()
class LadderProjector(nn.Module):
    """A ladder for the summary and one for each map.

    UNIC (https://arxiv.org/abs/2408.05088): besides the last block of the
    student, those before it are projected into the teacher's space, and the
    teacher is compared with the sum. Numbers are those of its code.

    Args:
        in_summary: Channels of the summary, of all blocks one after
            another, as :class:`ViTBackbone` with ``blocks`` gives it; None
            for no summary.
        out_summary: Channels of the projected summary; None drops it.
        in_channels: Channels of each map, likewise.
        out_channels: Channels of each projected map.
        rungs: Number of blocks. Defaults to 12.
        hidden: Hidden channels of all rungs but the last. Defaults to 768.
        last_hidden: Hidden channels of the last one. Defaults to 3072.
        init_std: Standard deviation of the initial weights. Defaults to
            0.02.

    Raises:
        ValueError: If the channels are not those of so many blocks.
    """

    def __init__(
        self,
        in_summary: int | None,
        out_summary: int | None,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        rungs: int = 12,
        hidden: int = 768,
        last_hidden: int = 3072,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        sizes = (rungs, hidden, last_hidden, init_std)
        self.summary = (
            Ladder(in_summary, out_summary, *sizes)
            if in_summary is not None and out_summary is not None
            else None
        )
        self.maps = nn.ModuleList(
            Ladder(a, b, *sizes)
            for a, b in zip(in_channels, out_channels, strict=True)
        )

    def forward(self, features: Features) -> Features:
        """Project summary (B, D) and maps, each (B, C_i, H_i, W_i)."""
        return project(features, self.summary, self.maps)
