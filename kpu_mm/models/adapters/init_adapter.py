"""ViT-Adapter's initial values."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..layers import DeformableAttention


def init_adapter(modules: Sequence[nn.Module]) -> None:
    """Set initial values as ViT-Adapter does.

    See https://arxiv.org/abs/2205.08534. Norm layers keep theirs.

    Args:
        modules: Every module of the adapter, inner ones included.
    """
    for module in modules:
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan_out = (
                module.kernel_size[0]
                * module.kernel_size[1]
                * module.out_channels
                // module.groups
            )
            nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in modules:
        if isinstance(module, DeformableAttention):
            module.reset_parameters()
