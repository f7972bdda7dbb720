"""MLPs from one model's feature space into another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from kpu_mm.registry import MODELS, find_model
from kpu_mm.structures import Features


def build_mlp(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    """An MLP with one hidden layer, over the last axis.

    Args:
        in_channels: Channels of the input.
        hidden: Hidden channels.
        out_channels: Channels of the output.
    """
    return nn.Sequential(nn.Linear(in_channels, hidden), nn.GELU(), nn.Linear(hidden, out_channels))


@MODELS.register_module()
class MLPProjector(nn.Module):
    """One MLP with one hidden layer for the summary and for each map.

    The h of KPU (https://arxiv.org/abs/2508.14707). Each position of a map
    is projected by itself.

    Args:
        in_summary: Channels of the summary; None for no summary.
        out_summary: Channels of the projected summary; None drops it.
        in_channels: Channels of each map.
        out_channels: Channels of each projected map.
        hidden: Hidden channels. Defaults to 768.

    Attributes:
        out_summary: Channels of the projected summary; None if there is none.
        out_channels: Channels of each projected map.
    """

    def __init__(
        self,
        in_summary: int | None,
        out_summary: int | None,
        in_channels: Sequence[int],
        out_channels: Sequence[int],
        hidden: int = 768,
    ) -> None:
        super().__init__()
        self.out_summary = None if in_summary is None else out_summary
        self.out_channels = tuple(out_channels)
        self.summary: Any = None
        if in_summary is not None and out_summary is not None:
            self.summary = self.build(in_summary, hidden, out_summary)
        self.maps: Any = nn.ModuleList(
            self.build(a, hidden, b) for a, b in zip(in_channels, out_channels, strict=True)
        )

    def build(self, in_channels: int, hidden: int, out_channels: int) -> nn.Module:
        """Build the MLP of the summary or of one map.

        Args:
            in_channels: Channels of the input.
            hidden: Hidden channels.
            out_channels: Channels of the output.
        """
        return build_mlp(in_channels, hidden, out_channels)

    def forward(self, features: Features, mlps: Sequence[int] | None = None) -> Features:
        """Project the summary and each map.

        Args:
            features: Summary (B, D), which may be absent, and maps, each
                (B, C_i, H_i, W_i).
            mlps: For each map, which of the MLPs projects it. Defaults to
                None, the first map goes through the first one, and so on.

        Returns:
            Summary (B, D') and maps (B, C'_i, H_i, W_i).
        """
        summary = None
        if self.summary is not None and features.summary is not None:
            summary = self.summary(features.summary)
        chosen = self.maps if mlps is None else [self.maps[k] for k in mlps]
        maps = tuple(
            # over channels: (B, C, H, W) -> (B, H, W, C) and back
            mlp(m.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            for mlp, m in zip(chosen, features.maps, strict=True)
        )
        return Features(summary, maps, features.masks)

    @classmethod
    def from_weights(
        cls, weights: Mapping[str, Tensor], teacher: str, kind: Any = None
    ) -> MLPProjector:
        """Build a projector from weights alone; their shapes tell the rest.

        Args:
            weights: State dict of a projector.
            teacher: Name of the teacher, for the error.
            kind: Type of the projector in the run's config. Defaults to
                None, not known.

        Raises:
            RuntimeError: If the type or the weights are not those of an MLPProjector.
        """
        # a subclass may compute something else with weights of the same names
        if kind is not None and find_model(kind, cls) is not cls:
            raise RuntimeError(
                f"The projector of teacher '{teacher}' is not a kpu_mm.MLPProjector but a "
                f'{kind!r}; only MLPProjectors can be exported.'
            )
        # names such as maps.2.0.weight: MLP 2, its first layer
        mlps = {n.split('.')[1] for n in weights if n.startswith('maps.')}
        try:
            in_summary, out_summary = (
                _widths(weights, 'summary')
                if any(name.startswith('summary.') for name in weights)
                else (None, None)
            )
            in_channels, out_channels = zip(
                *(_widths(weights, f'maps.{i}') for i in range(len(mlps))), strict=True
            )
            projector = cls(
                in_summary,
                out_summary,
                in_channels,
                out_channels,
                hidden=len(weights['maps.0.0.weight']),
            )
            projector.load_state_dict(dict(weights))
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            raise RuntimeError(
                f"The projector of teacher '{teacher}' is not a kpu_mm."
                f'MLPProjector: its weights are {sorted(weights)[:4]}...; '
                'only MLPProjectors can be exported.'
            ) from error
        return projector


def _widths(weights: Mapping[str, Tensor], mlp: str) -> tuple[int, int]:
    """Input and output channels of an MLP, by the shapes of its weights."""
    # weights of nn.Linear are (out, in)
    return (weights[f'{mlp}.0.weight'].shape[1], weights[f'{mlp}.2.weight'].shape[0])


class LayerwiseMLP(nn.ModuleList):
    """One MLP for each block of a ViT; their outputs are summed.

    Args:
        in_channels: Channels of all blocks together.
        out_channels: Channels of the sum.
        num_blocks: Number of blocks.
        hidden: Hidden channels of all MLPs but the last.
        last_hidden: Hidden channels of the last one.
        init_std: Standard deviation of the initial weights.

    Raises:
        ValueError: If the channels are not those of so many blocks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        hidden: int,
        last_hidden: int,
        init_std: float,
    ) -> None:
        if in_channels % num_blocks:
            raise ValueError(
                f'LayerwiseProjector: {in_channels} channels are not those of {num_blocks} blocks; '
                'set `num_blocks` to the number of `blocks` of the student, a kpu_mm.ViTBackbone.'
            )
        # UNIC gives the last block, whose features are used, more capacity.
        sizes = [hidden] * (num_blocks - 1) + [last_hidden]
        super().__init__(build_mlp(in_channels // num_blocks, size, out_channels) for size in sizes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=init_std)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Project each block's features and sum.

        Args:
            x: Features of one block after another, (..., num_blocks * C).

        Returns:
            (..., C').
        """
        blocks = x.chunk(len(self), dim=-1)  # num_blocks times (..., C)
        return reduce(torch.add, (mlp(block) for mlp, block in zip(self, blocks, strict=True)))


@MODELS.register_module()
class LayerwiseProjector(MLPProjector):
    """Layer-wise MLPs for the summary and for each map.

    UNIC (https://arxiv.org/abs/2408.05088), there called the ladder of
    projectors: besides the last block of the student, those before it are
    projected into the teacher's space, and the teacher is compared with the
    sum. Numbers are those of its code. For 's2t' alone.

    Args:
        in_summary: Channels of the summary, of all blocks one after
            another, as :class:`ViTBackbone` with ``blocks`` gives it; None
            for no summary.
        out_summary: Channels of the projected summary; None drops it.
        in_channels: Channels of each map, likewise.
        out_channels: Channels of each projected map.
        num_blocks: Number of blocks. Defaults to 12.
        hidden: Hidden channels of all MLPs but the last. Defaults to 768.
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
        num_blocks: int = 12,
        hidden: int = 768,
        last_hidden: int = 3072,
        init_std: float = 0.02,
    ) -> None:
        # Set before the MLPs are built, as build() reads them.
        self.num_blocks = num_blocks
        self.last_hidden = last_hidden
        self.init_std = init_std
        super().__init__(in_summary, out_summary, in_channels, out_channels, hidden)

    def build(self, in_channels: int, hidden: int, out_channels: int) -> nn.Module:
        """Build the layer-wise MLP of the summary or of one map.

        Args:
            in_channels: Channels of all blocks together.
            hidden: Hidden channels of all MLPs but the last.
            out_channels: Channels of the output.
        """
        return LayerwiseMLP(
            in_channels, out_channels, self.num_blocks, hidden, self.last_hidden, self.init_std
        )
