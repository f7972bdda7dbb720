"""One projector for each term and teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from kpu_mm.registry import MODELS

from ..teachers import BaseTeacher
from .level_pairs import Pairs


def build_projectors(
    cfg: dict[str, Any],
    pairs: Mapping[str, Mapping[str, Pairs]],
    embed_dims: int,
    teachers: Mapping[str, BaseTeacher],
) -> nn.ModuleDict:
    """Build h_s2t and h_rec, into each teacher's space, and h_t2s, out of it.

    Args:
        cfg: Config of a projector.
        pairs: By term, 's2t', 't2s' or 'rec', and teacher, the (teacher map,
            student level) pairs that it compares.
        embed_dims: Channels of the student.
        teachers: The teachers by name.

    Returns:
        The projectors by term and teacher.
    """
    projectors = {term: nn.ModuleDict() for term in pairs}
    for name, teacher in teachers.items():
        for term, modules in projectors.items():
            summary = teacher.summary_channels
            channels = [teacher.channels[i] for i, _ in pairs[term][name]]
            own = (summary, channels)
            common = (summary and embed_dims, [embed_dims] * len(channels))
            a, b = (own, common) if term == 't2s' else (common, own)
            sizes = dict(
                in_summary=a[0],
                in_channels=a[1],
                out_summary=b[0],
                out_channels=b[1],
            )
            modules[name] = MODELS.build(cfg, default_args=sizes)
    return nn.ModuleDict(projectors)
