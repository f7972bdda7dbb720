"""FrozenModule: what no training step may change."""

from __future__ import annotations

from typing import Any

from torch import nn
from typing_extensions import Self


class FrozenModule(nn.Module):
    """A module whose parameters and mode are fixed for good.

    Every parameter and sub-module assigned to it loses ``requires_grad`` and
    goes to eval mode at once, so a subclass cannot forget to freeze a part;
    the ``train()`` of any owner leaves it in eval mode. Gradients still flow
    *through* it: a subclass that wants none adds ``torch.no_grad``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.training = False

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module):
            value.requires_grad_(False).eval()
        elif isinstance(value, nn.Parameter):
            value.requires_grad_(False)
        super().__setattr__(name, value)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode.

        Args:
            mode: What an owner's ``train()`` asks for; eval is kept.
                Defaults to True.

        Returns:
            The module itself.
        """
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Refuse to be unfrozen.

        Args:
            requires_grad: False is a no-op. Defaults to True.

        Returns:
            The module itself.

        Raises:
            RuntimeError: If asked to require gradients.
        """
        if requires_grad:
            raise RuntimeError(
                f'{type(self).__name__} is frozen and cannot be trained: '
                'build the wrapped model without it to train its weights'
            )
        return super().requires_grad_(False)
