"""Unseen: a module whose parts come from files, not from checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from typing_extensions import Self


class Unseen(nn.Module):
    """A module whose parts are frozen, and no sub-modules.

    What walks a model never meets them: its state dict, parameters,
    optimizer, DDP and ``train()``; they follow it to a device only. Weights
    that a checkpoint has under its name are passed over.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_pass_over)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module):
            value.requires_grad_(False).eval()
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        for part in vars(self).values():
            if isinstance(part, nn.Module):
                part._apply(fn)
        return self


def _pass_over(
    module: nn.Module, state: dict[str, Any], prefix: str, *_: Any
) -> None:
    for name in [n for n in state if n.startswith(prefix)]:
        del state[name]
