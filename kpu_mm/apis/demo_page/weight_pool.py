"""WeightPool: one copy of what several models hold."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

# what two tensors have in common before all their values are compared
_Sketch = tuple[torch.Size, torch.dtype, torch.device, float]


class WeightPool:
    """Lets equal weights of frozen models be one tensor in memory.

    A student or teacher that is loaded for several tasks is the same again
    and again. Models that are trained must not share weights in this way.
    """

    def __init__(self) -> None:
        self._kept: dict[_Sketch, list[Tensor]] = {}

    def share(self, model: nn.Module) -> None:
        """Put what earlier models have into the place of a model's own.

        Args:
            model: The model, whose weights the pool keeps from now on.
        """
        for weight in _weights(model):
            same = self._kept.setdefault(_sketch(weight), [])
            for other in same:
                if torch.equal(weight, other):
                    weight.data = other.data
                    break
            else:
                same.append(weight)


def _weights(model: nn.Module) -> Iterator[Tensor]:
    """All of a kilobyte and more."""
    for weight in (*model.parameters(), *model.buffers()):
        if weight.numel() * weight.element_size() >= 1024:
            yield weight


def _sketch(weight: Tensor) -> _Sketch:
    total = float(weight.detach().sum())
    return weight.shape, weight.dtype, weight.device, total
