"""TeacherLink: all that lies between the student and one teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features, resize, resize_like

from .level_map import LevelMap
from .normalizers import BaseNormalizer
from .projectors import LayerwiseProjector

TERMS = ('s2t', 't2s', 'rec')


class TeacherLink(nn.Module):
    """Level map, normaliser and projectors between student and teacher.

    KPU (https://arxiv.org/abs/2508.14707). Nothing else resizes or projects
    features from the student to a teacher or back. The level map is a part
    of the state dict; loading compares it, since a projector of other levels
    is another projector.

    Args:
        levels: Which teacher map meets which student level.
        student_strides: Strides of the student's levels.
        projectors: h_s2t, h_t2s and h_rec by 's2t', 't2s' and 'rec'; a term
            that is off has none. Each has an MLP for each pair of levels,
            h_t2s and h_rec for those of :attr:`unified`.
        normalizer: What a teacher's features go through before they are
            compared. Defaults to None, they are compared as they are.
        joined_weight: Weight of a level that joined a teacher map, see
            :meth:`LevelMap.weights`. Defaults to 0.25.

    Attributes:
        closest: For each teacher map, the index of its closest pair.
        unified: The indices of the pairs that t2s and rec use.
        weights: Weights of all pairs, for s2t.
        unified_weights: Weights of the pairs that t2s and rec use.
        compares_summary: Whether summaries are compared; if not, the
            teacher's is dropped.
    """

    def __init__(
        self,
        levels: LevelMap,
        student_strides: Sequence[int],
        projectors: Mapping[str, nn.Module],
        normalizer: BaseNormalizer | None = None,
        joined_weight: float = 0.25,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.student_strides = tuple(student_strides)
        self.closest = levels.closest(student_strides)
        self.unified = unified_pairs(levels, student_strides, projectors)
        self.weights, self.unified_weights = (
            levels.weights(used, student_strides, joined_weight)
            for used in (range(len(levels.pairs)), self.unified)
        )
        # None for a term that is off: nn.Module leaves it out of the state.
        self.s2t: Any = projectors.get('s2t')
        self.t2s: Any = projectors.get('t2s')
        self.rec: Any = projectors.get('rec')
        self.normalizer: Any = normalizer
        # A projector that does not say so may give one.
        given = (getattr(projector, 'out_summary', True) for projector in projectors.values())
        self.compares_summary = any(summary is not None for summary in given)

    # ---- training ---------------------------------------------------------

    def targets(self, teacher: Features) -> Features:
        """Normalise a teacher's features.

        Args:
            teacher: The teacher's summary and all of its maps.
        """
        if not self.compares_summary:
            teacher = teacher._replace(summary=None)
        if self.normalizer is None:
            return teacher
        normalised: Features = self.normalizer(teacher)
        return normalised

    def pair(self, student: Features, targets: Features) -> tuple[Features, Features]:
        """Lay out student's and teacher's maps pair by pair.

        Args:
            student: The student's summary and all of its levels.
            targets: The teacher's summary and all of its maps.

        Returns:
            X and X^t, with a map for each pair.
        """
        # [(map, level), ...] -> (map, ...), (level, ...)
        maps, levels = zip(*self.levels.pairs, strict=True)
        return student.select(levels), targets.select(maps)

    def pair_unified(self, x: Features, x_t: Features) -> tuple[Features, Features]:
        """Keep the pairs that t2s and rec use.

        Args:
            x: X as :meth:`pair` gave it.
            x_t: X^t as :meth:`pair` gave it.
        """
        return x.select(self.unified), x_t.select(self.unified)

    def to_teacher(self, x: Features, like: Features) -> Features:
        """h_s2t(X), on the grids of X^t.

        Args:
            x: The student's paired maps.
            like: The teacher's paired maps, for their sizes.
        """
        # Resizing and an MLP do not commute: `infer` has the same order.
        shrinks = self._shrinks(range(len(self.levels.pairs)), to_teacher=True)
        projected: Features = self.s2t(resize_like(x, like, shrinks))
        return projected

    def to_student(self, x_t: Features, like: Features | None = None) -> Features:
        """h_t2s(X^t), on the grids of X.

        Args:
            x_t: The teacher's maps of the unified pairs.
            like: The student's maps of these pairs, for their sizes.
                Defaults to None, the teacher's own sizes.
        """
        projected: Features = self.t2s(x_t)
        if like is None:
            return projected
        return resize_like(projected, like, self._shrinks(self.unified, to_teacher=False))

    def reconstruct(self, unified: Features, like: Features) -> Features:
        """h_rec(h_t2s(X^t)), on the grids of X^t.

        Args:
            unified: What :meth:`to_student` gave.
            like: The teacher's maps of the unified pairs, for their sizes.
        """
        shrinks = self._shrinks(self.unified, to_teacher=True)
        projected: Features = self.rec(resize_like(unified, like, shrinks))
        return projected

    @property
    def needs_summary(self) -> bool:
        """Whether a term depends on the student's summary."""
        return self.compares_summary or getattr(self.s2t, 'mixes_summary', False)

    def _shrinks(self, used: Sequence[int], to_teacher: bool) -> tuple[int, ...]:
        return self.levels.shrinks(used, self.student_strides, to_teacher)

    # ---- inference --------------------------------------------------------

    @property
    def summary_channels(self) -> int | None:
        """Channels of the summary that :meth:`infer` gives, if any."""
        channels: int | None = self.s2t.out_summary
        return channels

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the maps that :meth:`infer` gives."""
        return tuple(self.s2t.out_channels[k] for k in self.closest)

    def infer(self, student: Features, size: tuple[int, int]) -> Features:
        """What the student takes the teacher's features to be.

        Each map of the teacher comes from the student level of the closest
        stride, resized to the teacher's grid and projected.

        Args:
            student: The student's summary and all of its levels.
            size: Height and width of the images.

        Returns:
            In the teacher's own space the summary (B, D), None for a teacher
            without one, and its maps,
            (B, C_i, ceil(H / s_i), ceil(W / s_i)).
        """
        levels = [self.levels.pairs[k][1] for k in self.closest]
        shrinks = self._shrinks(self.closest, to_teacher=True)
        maps = tuple(
            # -(-side // stride) would be wrong: ONNX divides towards zero
            resize(m, tuple((side + stride - 1) // stride for side in size), shrink)
            if stride != self.student_strides[level]
            else m
            for m, level, stride, shrink in zip(
                student.select(levels).maps, levels, self.levels.strides, shrinks, strict=True
            )
        )
        projected: Features = self.s2t(student._replace(maps=maps, masks=None), mlps=self.closest)
        if self.normalizer is not None:
            projected = self.normalizer.invert(projected)
        return projected

    # ---- checkpoints ------------------------------------------------------

    def get_extra_state(self) -> Tensor:
        """The level map, as JSON in a uint8 tensor."""
        return self.levels.to_tensor()

    def set_extra_state(self, state: Tensor) -> None:
        """Check that a checkpoint's projectors fit the level map.

        Raises:
            RuntimeError: If they were trained for another one.
        """
        saved = LevelMap.from_tensor(state)
        if saved != self.levels:
            raise RuntimeError(
                "the checkpoint's projectors connect (teacher map, student "
                f'level) {saved.pairs} at strides {saved.strides}, but this model connects '
                f'{self.levels.pairs} at {self.levels.strides}; use the teachers that it was '
                'trained with, or give this one another name.'
            )


def unified_pairs(
    levels: LevelMap, student_strides: Sequence[int], terms: Mapping[str, Any]
) -> tuple[int, ...]:
    """The pairs that t2s and rec use.

    A student level that only joined a coarser teacher map learns from it in
    s2t, on the map's grid; t2s, on the level's own grid, would over-smooth
    it. Without s2t it has nothing else to learn from, and all pairs are used.

    Args:
        levels: The level map.
        student_strides: Strides of the student's levels.
        terms: Whatever is in use, by term.
    """
    if 's2t' in terms:
        return levels.closest(student_strides)
    return tuple(range(len(levels.pairs)))


def build_link(
    levels: LevelMap,
    student: Any,
    teacher: Any,
    terms: Mapping[str, float],
    projector: dict[str, Any],
    normalizer: dict[str, Any] | None,
    joined_weight: float,
    compares_summary: bool = True,
) -> TeacherLink:
    """Build the link to one teacher, with new projectors.

    Args:
        levels: Which teacher map meets which student level.
        student: The student, an encoder.
        teacher: The teacher, an encoder.
        terms: The loss terms in use.
        projector: Config of a projector.
        normalizer: Config of a normaliser; None for none.
        joined_weight: Weight of a level that joined a teacher map.
        compares_summary: Whether L_align compares summaries; if not, none is
            projected. Defaults to True.

    Raises:
        ValueError: If a layer-wise projector has another number of blocks
            than what it projects.
    """
    unified = unified_pairs(levels, student.strides, terms)
    # An MLP without a gradient would make DDP stop.
    summary = teacher.summary_channels if compares_summary else None
    projectors = {}
    # The order of construction decides the initial weights of a seed.
    for term in terms:
        used = range(len(levels.pairs)) if term == 's2t' else unified
        maps = [teacher.channels[levels.pairs[k][0]] for k in used]
        # (summary, maps) channels of the student's and the teacher's end
        ends = [(summary and student.embed_dims, [student.embed_dims] * len(maps)), (summary, maps)]
        if term == 't2s':
            ends.reverse()
        (in_summary, in_channels), (out_summary, out_channels) = ends
        projectors[term] = MODELS.build(
            projector,
            default_args=dict(
                in_summary=in_summary,
                in_channels=in_channels,
                out_summary=out_summary,
                out_channels=out_channels,
            ),
        )
        _check_blocks(projectors[term], term, student)
    channels = dict(summary_channels=summary, channels=teacher.channels)
    return TeacherLink(
        levels,
        student.strides,
        projectors,
        None if normalizer is None else MODELS.build(normalizer, default_args=channels),
        joined_weight,
    )


def _check_blocks(projector: nn.Module, term: str, student: Any) -> None:
    """Channels that divide by another number of blocks would be cut anywhere."""
    blocks = 1 if term == 't2s' else len(getattr(student, 'blocks', (None,)))
    if isinstance(projector, LayerwiseProjector) and projector.num_blocks != blocks:
        raise ValueError(
            f'LayerwiseProjector: num_blocks={projector.num_blocks}, but the number of blocks that '
            f"'{term}' projects is {blocks}; use it for 's2t' alone, with as many `blocks` of the "
            'student, a kpu_mm.ViTBackbone.'
        )
