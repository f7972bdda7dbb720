"""A backbone that several models share and none of them owns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from ..backbones.outputs import Outputs


class BackboneView(BaseModule):
    """What one task sees of a shared backbone.

    It has no parameters of its own: the backbone's belong to the model that
    shares it, and are counted, saved and trained there.

    Args:
        backbone: The shared backbone: one with ``extract``, as
            :class:`KPUBackbone` has it, or any of OpenMMLab's. Its own
            output is a pyramid, or, of four maps, 'features'.
        out_type: 'pyramid', or another output that a backbone with
            ``extract`` can give, such as 'summary'. Defaults to 'pyramid'.
        out_indices: Which maps a pyramid has. Defaults to (0, 1, 2, 3).

    Raises:
        ValueError: If the backbone cannot give that.
    """

    def __init__(
        self,
        backbone: nn.Module,
        out_type: str = 'pyramid',
        out_indices: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        super().__init__()
        self._outputs = Outputs(out_type, out_indices)
        self._places = _own_maps(backbone) if out_type == 'pyramid' else None
        if self._places is None and not hasattr(backbone, 'extract'):
            raise ValueError(
                f'{type(backbone).__name__} gives a pyramid only, but '
                f'out_type={out_type!r}.'
            )
        missing = set(self._outputs.indices) - set(self._places or range(4))
        if missing:
            raise ValueError(
                f'{type(backbone).__name__} gives no maps {sorted(missing)}; '
                'add them to its out_indices.'
            )
        # In a tuple: an attribute that is a module would be registered.
        self._shared: tuple[Any] = (backbone,)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features of normalised images, as the task's model takes them.

        Args:
            images: (B, 3, H, W).

        Returns:
            The chosen maps, each (B, C_i, H_i, W_i), or one tensor (B, C).
        """
        (backbone,) = self._shared
        if self._places is None:
            return self._outputs.select(backbone.extract(images))
        maps = backbone(images)
        return tuple(maps[self._places[i]] for i in self._outputs.indices)


def _own_maps(backbone: nn.Module) -> dict[int, int] | None:
    """Where in the backbone's own output each map of a pyramid is.

    None for a backbone of this package that gives something else.
    """
    outputs: Any = getattr(backbone, 'outputs', None)
    if not isinstance(outputs, Outputs):
        return {i: i for i in range(4)}
    if outputs.kind == 'pyramid':
        return {index: place for place, index in enumerate(outputs.indices)}
    strides: Any = backbone.strides
    if len(strides) < 4:
        raise ValueError(
            f'{type(backbone).__name__} makes a pyramid of its one map, of '
            f"stride {strides[0]}, only with out_type='pyramid'; set that "
            'for the tasks that share it.'
        )
    return None
