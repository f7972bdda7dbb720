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
            :class:`KPUBackbone` has it, or any of OpenMMLab's.
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
        self._extracts = hasattr(backbone, 'extract')
        if not self._extracts and out_type != 'pyramid':
            raise ValueError(
                f'{type(backbone).__name__} gives a pyramid only, but '
                f'out_type={out_type!r}.'
            )
        strides: Any = getattr(backbone, 'strides', None)
        if self._extracts and out_type == 'pyramid' and strides is not None:
            _check_pyramid(type(backbone).__name__, strides)
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
        if self._extracts:
            return self._outputs.select(backbone.extract(images))
        maps = backbone(images)
        return tuple(maps[i] for i in self._outputs.indices)


def _check_pyramid(name: str, strides: Sequence[int]) -> None:
    if len(strides) < 4:
        raise ValueError(
            f'{name} has one map, of stride {strides[0]}, and makes no '
            'pyramid for tasks that share it; train such tasks one by one.'
        )
