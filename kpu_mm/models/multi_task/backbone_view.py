"""A backbone that several models share and none of them owns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from ..backbones.outputs import Outputs


class BackboneView(BaseModule):
    """What one task sees of a shared backbone.

    The backbone's parameters belong to the model that shares it, and are
    counted, saved and trained there. Where a pyramid has to be learnt from
    the backbone's maps, each task learns its own, as it would alone.

    Args:
        backbone: The shared backbone: one of this package, or any of
            OpenMMLab's with four maps.
        out_type: 'pyramid', or another output that a backbone with
            ``extract`` can give, such as 'summary'. Defaults to 'pyramid'.
        out_indices: Which maps a pyramid has. Defaults to (0, 1, 2, 3).

    Raises:
        ValueError: If the backbone cannot give that, or has itself a
            pyramid to learn.
    """

    def __init__(
        self,
        backbone: nn.Module,
        out_type: str = 'pyramid',
        out_indices: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        super().__init__()
        self._outputs = Outputs(out_type, out_indices)
        _check(backbone, self._outputs)
        self.levels: nn.Module | None = None
        build: Any = getattr(backbone, 'build_levels', None)
        if out_type == 'pyramid' and build is not None:
            self.levels = build(out_indices)
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
        if not hasattr(backbone, 'extract'):
            maps = backbone(images)
            return tuple(maps[i] for i in self._outputs.indices)
        features = backbone.extract(images)
        if self.levels is None:
            return self._outputs.select(features)
        pyramid: tuple[Tensor, ...] = self.levels(
            features.maps, (images.shape[-2], images.shape[-1])
        )
        return pyramid


def _check(backbone: Any, wanted: Outputs) -> None:
    """Raise if a shared backbone cannot give what a task wants of it."""
    name = type(backbone).__name__
    if not hasattr(backbone, 'extract'):
        if wanted.kind != 'pyramid':
            raise ValueError(
                f'{name} gives a pyramid only, but out_type={wanted.kind!r}.'
            )
        return
    given = backbone.outputs
    if hasattr(backbone, 'build_levels') and given.kind == 'pyramid':
        raise ValueError(
            f'each task makes a pyramid of its own from the maps of {name}: '
            "share it with out_type='features'."
        )
    if given.kind == wanted.kind == 'pyramid':
        missing = set(wanted.indices) - set(given.indices)
        if missing:
            raise ValueError(
                f'{name} gives no maps {sorted(missing)}; add them to its '
                'out_indices.'
            )
