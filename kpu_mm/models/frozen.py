"""What no training step may change, and what no checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from typing_extensions import Self


def freeze(module: nn.Module) -> None:
    """Take the gradients of a module and set it to eval mode.

    Args:
        module: The module.
    """
    module.requires_grad_(False).eval()


class EvalModule(nn.Module):
    """A module that stays in eval mode, whether it is trained or not.

    Attributes:
        casts_whole: Whether autocast to bfloat16 may run it wholly in that
            precision, when it is frozen. False for a model that needs
            autocast to mend mixed precisions.
    """

    casts_whole = True

    def __init__(self) -> None:
        super().__init__()
        # nn.Module starts in train mode, in which a BatchNorm would change
        self.training = False
        # In a list: nn.Module would register the copy.
        self._cast: list[tuple[Any, Self]] = []

    @contextmanager
    def in_autocast(self, device: torch.device) -> Iterator[Self]:
        """What to run in the place of this module, in its precision.

        Under autocast to bfloat16 a frozen module is run as a copy of
        itself that is wholly in bfloat16, made when it is first needed.
        Autocast alone casts frozen weights in each forward pass anew, and
        computes norms and residuals in float32.

        Args:
            device: Where it runs.

        Yields:
            The module or its copy.
        """
        kind = device.type
        if (
            # the compiler fuses casts with what follows
            torch.compiler.is_compiling()
            or not self.casts_whole
            or not torch.is_autocast_enabled(kind)
            or torch.get_autocast_dtype(kind) != torch.bfloat16
            or not (weights := list(self.parameters()))
            or any(p.requires_grad for p in weights)
        ):
            yield self
            return
        # what moves the weights, or loads others
        state = (weights[0].device, sum(p._version for p in weights))
        if not self._cast or self._cast[0][0] != state:
            self._cast.clear()
            self._cast.append((state, _cast_copy(self, torch.bfloat16)))
        with torch.autocast(kind, enabled=False):
            yield self._cast[0][1]

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode.

        Args:
            mode: What an owner's ``train()`` asks for; eval is kept.
                Defaults to True.

        Returns:
            The module itself.
        """
        return super().train(False)


def _cast_copy(module: EvalModule, dtype: torch.dtype) -> Any:
    """A copy of a frozen module, in another precision."""
    # deepcopy takes what is in its memo for copied already
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to(dtype), requires_grad=False) for p in module.parameters()
    }
    memo |= {id(b): b.to(dtype) for b in module.buffers() if b.is_floating_point()}
    return deepcopy(module, memo)


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
