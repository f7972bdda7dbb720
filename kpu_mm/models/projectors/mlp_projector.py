"""MLPs from one model's feature space into another's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features


def build_mlp(
    in_channels: int, hidden: int, out_channels: int
) -> nn.Sequential:
    """An MLP with one hidden layer, over the last axis.

    Args:
        in_channels: Channels of the input.
        hidden: Hidden channels.
        out_channels: Channels of the output.
    """
    return nn.Sequential(
        nn.Linear(in_channels, hidden),
        nn.GELU(),
        nn.Linear(hidden, out_channels),
    )


@MODELS.register_module()
class MLPProjector(nn.Module):
    """One MLP with one hidden layer for the summary and for each map.

    The h of KPU (https://arxiv.org/abs/2508.14707). Positions are projected
    one by one; :func:`resize` brings features onto another grid.

    Args:
        in_summary: Channels of the summary; None for no summary.
        out_summary: Channels of the projected summary; None drops it.
        in_channels: Channels of each map.
        out_channels: Channels of each projected map.
        hidden: Hidden channels. Defaults to 768.
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
        self.summary = (
            build_mlp(in_summary, hidden, out_summary)
            if in_summary is not None and out_summary is not None
            else None
        )
        self.maps = nn.ModuleList(
            build_mlp(a, hidden, b)
            for a, b in zip(in_channels, out_channels, strict=True)
        )

    def forward(self, features: Features) -> Features:
        """Project summary (B, D) and maps, each (B, C_i, H_i, W_i)."""
        return project(features, self.summary, self.maps)


def project(
    features: Features, summary: nn.Module | None, maps: Iterable[nn.Module]
) -> Features:
    """Project a summary and maps.

    Args:
        features: Summary (B, D), which may be absent, and maps, each
            (B, C_i, H_i, W_i).
        summary: From D to D' channels; None drops the summary.
        maps: For each map, from C_i to C'_i channels, over the last axis.
    """
    return Features(
        None
        if summary is None or features.summary is None
        else summary(features.summary),
        tuple(
            project_map(mlp, m)
            for mlp, m in zip(maps, features.maps, strict=True)
        ),
        features.masks,
    )


def project_map(mlp: nn.Module, m: Tensor) -> Tensor:
    """Project each position of a map.

    Args:
        mlp: From C to C' channels, over the last axis.
        m: (B, C, H, W).

    Returns:
        (B, C', H, W).
    """
    projected: Tensor = mlp(m.permute(0, 2, 3, 1))
    return projected.permute(0, 3, 1, 2)
