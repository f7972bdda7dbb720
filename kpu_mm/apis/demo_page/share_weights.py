"""One copy of what several models hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

# what two tensors have in common before all their values are compared
_Sketch = tuple[torch.Size, torch.dtype, torch.device, float]


def share_weights(models: Iterable[nn.Module]) -> None:
    """Let equal weights of frozen models be one tensor in memory.

    Students and teachers that are loaded for several tasks are the same ones
    again and again. A model that is trained afterwards would train the
    others with it.

    Args:
        models: The models, which are changed.
    """
    kept: dict[_Sketch, list[Tensor]] = {}
    for model in models:
        for weight in _weights(model):
            same = kept.setdefault(_sketch(weight), [])
            for other in same:
                if torch.equal(weight, other):
                    weight.data = other.data
                    break
            else:
                same.append(weight)


def _weights(model: nn.Module) -> Iterator[Tensor]:
    """All with at least a kilobyte: smaller ones are not worth a look."""
    for weight in (*model.parameters(), *model.buffers()):
        if weight.numel() * weight.element_size() >= 1024:
            yield weight


def _sketch(weight: Tensor) -> _Sketch:
    return weight.shape, weight.dtype, weight.device, float(weight.sum())
