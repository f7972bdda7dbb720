"""What no training step may change, and what no checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from typing_extensions import Self


def freeze(module: nn.Module) -> None:
    """Take the gradients of a module and set it to eval mode.

    Args:
        module: The module.
    """
    module.requires_grad_(False).eval()


class EvalModule(nn.Module):
    """A module that stays in eval mode, whether it is trained or not."""

    def __init__(self) -> None:
        super().__init__()
        # nn.Module starts in train mode, in which a BatchNorm would change
        self.training = False

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode.

        Args:
            mode: What an owner's ``train()`` asks for; eval is kept.
                Defaults to True.

        Returns:
            The module itself.
        """
        return super().train(False)


class FrozenModule(EvalModule):
    """A module whose parameters and mode are fixed for good.

    Every parameter and sub-module assigned to it loses ``requires_grad`` and
    goes to eval mode at once, so a subclass cannot forget to freeze a part;
    the ``train()`` of any owner leaves it in eval mode. Gradients still flow
    *through* it: a subclass that wants none adds ``torch.no_grad``.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        # at once, so that no subclass can forget it
        if isinstance(value, nn.Module):
            freeze(value)
        elif isinstance(value, nn.Parameter):
            value.requires_grad_(False)
        super().__setattr__(name, value)

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


class ExternalModule(nn.Module):
    """A module whose parts come from files of their own, not checkpoints.

    The parts are frozen, and no sub-modules: the owner's state dict,
    parameters, optimiser, DDP and ``train()`` never meet them; they follow
    it to a device only. Weights that a checkpoint has under the module's
    name are ignored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_ignore_weights)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module):
            freeze(value)
            # not nn.Module's, which would register a sub-module
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Do to the parts what ``to()``, ``cuda()`` or ``half()`` does."""
        super()._apply(fn, recurse)
        for part in vars(self).values():
            if isinstance(part, nn.Module):
                part._apply(fn)
        return self


def _ignore_weights(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Else they would be reported as unexpected, or refused."""
    # a list, as the dict changes its size
    for name in [n for n in state if n.startswith(prefix)]:
        del state[name]
