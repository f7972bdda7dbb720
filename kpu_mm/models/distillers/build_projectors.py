"""One projector for each term and teacher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from kpu_mm.registry import MODELS

from ..teachers import BaseTeacher
from .level_pairs import Pairs


def build_projectors(
    cfg: dict[str, Any],
    terms: Iterable[str],
    embed_dims: int,
    teachers: Mapping[str, BaseTeacher],
    pairs: Mapping[str, Pairs],
) -> nn.ModuleDict:
    """Build h_s2t and h_rec, into each teacher's space, and h_t2s, out of it.

    Args:
        cfg: Config of a projector.
        terms: Which of 's2t', 't2s' and 'rec'.
        embed_dims: Channels of the student.
        teachers: The teachers by name.
        pairs: For each teacher, its (teacher map, student level) pairs.

    Returns:
        The projectors by term and teacher.
    """
    projectors = {term: nn.ModuleDict() for term in terms}
    for name, teacher in teachers.items():
        summary = teacher.summary_channels
        channels = [teacher.channels[i] for i, _ in pairs[name]]
        student = dict(
            in_summary=summary and embed_dims,
            in_channels=[embed_dims] * len(channels),
        )
        into = dict(student, out_summary=summary, out_channels=channels)
        out_of = dict(
            in_summary=summary,
            in_channels=channels,
            out_summary=summary and embed_dims,
            out_channels=[embed_dims] * len(channels),
        )
        for term, modules in projectors.items():
            modules[name] = MODELS.build(
                cfg, default_args=out_of if term == 't2s' else into
            )
    return nn.ModuleDict(projectors)
