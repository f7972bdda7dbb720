"""Parameters and floating-point operations of models, part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

# torch's counter leaves these out; of them only the sampling of deformable
# attention costs much.
NOT_COUNTED = (
    'grid_sample, interpolation, norms, activations, softmax and other '
    'element-wise operations'
)
# How names of KPUBackbone's parameters start, or contain, and their part.
_PARTS = (
    ('sentinel.', 'sentinel'),
    ('prior.', 'spatial prior'),
    ('.injector.', 'injectors'),
    ('.extractors.', 'extractors'),
)


class Parameters(NamedTuple):
    """How many parameters a part has.

    Args:
        trained: Those with gradients.
        frozen: Those without.
    """

    trained: int
    frozen: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.trained + self.frozen


def part_of(name: str) -> str:
    """Tell which part of a KPUBackbone a parameter or module belongs to.

    Args:
        name: Its name within the backbone.
    """
    for pattern, part in _PARTS:
        if name.startswith(pattern) or (pattern[0] == '.' and pattern in name):
            return part
    return 'pyramid'


def count_parameters(
    module: nn.Module, part: Callable[[str], str] = part_of
) -> dict[str, Parameters]:
    """Count the parameters of each part of a module.

    Args:
        module: The module.
        part: Name of a parameter -> name of its part. Defaults to
            :func:`part_of`.

    Returns:
        The counts by part, in the order of the parameters.
    """
    counts: dict[str, Parameters] = {}
    for name, p in module.named_parameters():
        trained, frozen = counts.get(part(name), (0, 0))
        trained += p.numel() * p.requires_grad
        frozen += p.numel() * (not p.requires_grad)
        counts[part(name)] = Parameters(trained, frozen)
    return counts


@torch.no_grad()
def count_flops(module: nn.Module, images: Tensor) -> dict[str, int]:
    """Count what a forward computes: two FLOPs for each multiply-add.

    Args:
        module: A model of images.
        images: Its input, (B, 3, H, W).

    Returns:
        FLOPs per image of each module that was called, by its name; the
        module itself is ''.
    """
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(
        display=False, custom_mapping={attention: _attention_flops}
    ) as counter:
        module(images)
    root = type(module).__name__
    counts = {'': counter.get_total_flops() // len(images)}
    for name, operators in counter.get_flop_counts().items():
        if name.startswith(root + '.'):
            total = sum(operators.values()) // len(images)
            counts[name[len(root) + 1 :]] = total
    return counts


def _attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any
) -> int:
    # torch has this formula for the GPU's kernels alone.
    flops: int = sdpa_flop_count(query, key, value)
    return flops


def flops_by_part(counts: Mapping[str, int]) -> dict[str, int]:
    """FLOPs of each part of a KPUBackbone.

    Args:
        counts: What :func:`count_flops` gave of the backbone.

    Returns:
        FLOPs by the names that :func:`part_of` gives.
    """
    flops = dict.fromkeys((part for _, part in _PARTS), 0)
    parts = {name: part_of(name + '.') for name in counts}
    for name, part in parts.items():
        parents = (name[:i] for i, c in enumerate(name) if c == '.')
        # The outermost module of a part already counts those inside it.
        if part in flops and all(parts.get(p) != part for p in parents):
            flops[part] += counts[name]
    return {**flops, 'pyramid': counts[''] - sum(flops.values())}
