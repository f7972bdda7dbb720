"""WeightPool: one copy of what several models hold."""

from __future__ import annotations

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
        # as model.to(device) does it, which reaches unseen parts too
        model._apply(self._find)

    def _find(self, weight: Tensor) -> Tensor:
        weight = weight.detach()
        if weight.nbytes < 1024:  # not worth a look
            return weight
        sketch = weight.shape, weight.dtype, weight.device, float(weight.sum())
        same = self._kept.setdefault(sketch, [])
        for other in same:
            if torch.equal(weight, other):
                return other
        same.append(weight)
        return weight
