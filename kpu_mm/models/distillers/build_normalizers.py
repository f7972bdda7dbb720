"""One normaliser for each teacher, built and fitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dist import broadcast, get_world_size
from torch import nn

from kpu_mm.registry import MODELS
from kpu_mm.structures import Moments, valid_vectors

from ..normalizers import BaseNormalizer
from ..teachers import BaseTeacher

if TYPE_CHECKING:
    from .kpu_distiller import KPUDistiller


def build_normalizers(
    cfg: dict[str, Any] | None, teachers: Mapping[str, BaseTeacher]
) -> nn.ModuleDict:
    """Build a normaliser of the same kind for each teacher.

    Args:
        cfg: Config of a normaliser; None for none.
        teachers: The teachers by name.

    Returns:
        The normalisers by teacher; empty for None.
    """
    normalizers = nn.ModuleDict()
    for name, teacher in teachers.items() if cfg is not None else ():
        normalizers[name] = MODELS.build(
            cfg,
            default_args=dict(
                summary_channels=teacher.summary_channels,
                channels=teacher.channels,
            ),
        )
    return normalizers


@torch.no_grad()
def fit_normalizers(
    model: KPUDistiller,
    loaders: Mapping[str, Iterable[Mapping[str, Any]]],
    num_images: int,
) -> list[str]:
    """See :meth:`KPUDistiller.fit_normalizers`.

    Args:
        model: The distiller.
        loaders: For each stream, endless batches.
        num_images: Images of each stream.

    Returns:
        The teachers whose normalisers were fitted.

    Raises:
        ValueError: If the features of a teacher do not define a normaliser.
    """
    unfitted = [k for k, n in model.normalizers.items() if not n.fitted]
    found: dict[str, dict[str, Moments]] = {name: {} for name in unfitted}
    for stream, teachers in model.taught_by.items():
        seen = {name: found[name] for name in teachers if name in found}
        if seen:
            _measure(model, seen, loaders[stream], num_images)
    for name, moments in found.items():
        _fit(name, model.normalizers[name], moments)
    return unfitted


def _measure(
    model: KPUDistiller,
    found: Mapping[str, dict[str, Moments]],
    batches: Iterable[Mapping[str, Any]],
    num_images: int,
) -> None:
    """Add to the moments of teachers' outputs what a stream shows of them."""
    for batch in batches:
        data = model.data_preprocessor(batch, False)
        for name, moments in found.items():
            features = model.observe(
                name, data['images'], data['mask'], data.get('features')
            )
            for output, values, mask in features.outputs():
                new = Moments.of(valid_vectors(values, mask))
                old = moments.get(output)
                moments[output] = new if old is None else old + new
        num_images -= len(batch['images']) * get_world_size()
        if num_images <= 0:
            break


def _fit(
    name: str, normalizer: BaseNormalizer, moments: Mapping[str, Moments]
) -> None:
    together = {k: m.over_ranks().cpu() for k, m in moments.items()}
    try:
        normalizer.fit(together)
    except ValueError as error:
        raise ValueError(f"normalizer of teacher '{name}', {error}") from error
    for buffer in normalizer.buffers():
        # solved alike on all ranks, but not to the last bit on all machines
        broadcast(buffer)
