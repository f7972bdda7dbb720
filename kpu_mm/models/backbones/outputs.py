"""What a backbone gives, and which parts of KPUBackbone that needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from kpu_mm.structures import Features

if TYPE_CHECKING:
    from .kpu_backbone import KPUBackbone

# Of four maps, the one whose stride is closest to the patches of a ViT.
_POOLED = 2
# Which maps an output other than a pyramid is made of.
_USED = {
    'summary': (),
    'summary_spatial': (_POOLED,),
    'features': (0, 1, 2, 3),
}


class Outputs:
    """Choice among the features of a backbone.

    Args:
        kind: 'pyramid', 'summary', 'summary_spatial', or 'features'.
        indices: Which of the four maps a pyramid has.

    Raises:
        ValueError: If there is no such kind or map.
    """

    def __init__(self, kind: str, indices: Sequence[int]) -> None:
        check_choice('out_type', kind, ('pyramid', *_USED))
        if not indices or not set(indices) <= {0, 1, 2, 3}:
            raise ValueError(
                f'out_indices={tuple(indices)}: choose from 0, 1, 2 and '
                '3 (strides 4, 8, 16 and 32).'
            )
        self.kind = kind
        self.indices = tuple(indices)

    def channels(self, dims: int) -> tuple[int, ...]:
        """Channels of each tensor, if each feature has ``dims``."""
        if self.kind == 'pyramid':
            return (dims,) * len(self.indices)
        if self.kind == 'features':
            return (dims,) * 4
        return (dims,) if self.kind == 'summary' else (2 * dims,)

    def select(self, features: Features) -> tuple[Any, ...]:
        """Take from features what was chosen.

        Args:
            features: Summary (B, C) and four maps (B, C, H_i, W_i), or one
                of a ViT's patches.

        Returns:
            The maps, or one tensor: (B, C) for 'summary', (B, 2 C) for
            'summary_spatial'; for 'features' all as it is.
        """
        if self.kind == 'features':
            return features
        if self.kind == 'pyramid':
            return tuple(features.maps[i] for i in self.indices)
        assert features.summary is not None
        if self.kind == 'summary':
            return (features.summary,)
        patches = _POOLED if len(features.maps) > 1 else 0
        pooled = features.maps[patches].mean((-2, -1))
        return (torch.cat([features.summary, pooled], 1),)

    def freeze_unused(self, backbone: KPUBackbone) -> None:
        """Freeze what no output depends on.

        It would get no gradient, which DDP refuses.

        Args:
            backbone: The backbone that gives these outputs.
        """
        used = _USED.get(self.kind, self.indices)
        unused: list[Any] = [
            norm for i, norm in enumerate(backbone.norms) if i not in used
        ]
        if 0 not in used:
            unused += [backbone.up, backbone.prior.projections[0]]
        if not used:
            unused.append(backbone.interactions[-1].extractors)
        if self.kind == 'pyramid':
            unused.append(backbone.sentinel.final_norm)
        for part in unused:
            part.requires_grad_(False)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError unless an option has one of its values.

    Args:
        name: The option.
        value: Its value.
        choices: Its values.
    """
    if value not in choices:
        raise ValueError(f'{name}={value!r}: choose from {tuple(choices)}.')
