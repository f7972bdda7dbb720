"""KPUDistiller: several frozen teachers, one student, no labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from .backbones.sentinel_backbone import SentinelBackbone
from .balancers import SecondForward
from .distill_log import Comparison, log_values, std_ratios
from .level_map import map_levels
from .multi_stream_model import MultiStreamModel, Streams
from .teacher_link import TERMS, TeacherLink, build_link
from .teacher_streams import TeacherStreams
from .teachers import TeacherBank

Targets = Mapping[str, Mapping[str, Features]]


@MODELS.register_module()
class KPUDistiller(MultiStreamModel):
    """Knowledge preservation and unification.

    KPU (https://arxiv.org/abs/2508.14707). Teachers stay outside of
    parameters, checkpoints, optimiser and DDP.

    Args:
        student: Config of the student, a backbone that is an encoder.
        teachers: Configs of the teachers by name.
        streams: For a teacher whose images are not those of the stream of
            its own name, the name of another stream, or names of several.
            Several teachers may share one; for a teacher each of its streams
            counts the same. Defaults to None.
        terms: Weights of the loss terms 's2t' (student to teacher), 't2s'
            (unification) and 'rec' (reconstruction, needs 't2s'); a term
            that is left out is off. With 's2t' on, 't2s' and 'rec' use only
            the closest level of each teacher map. Defaults to 1.0 for all
            three.
        joined_weight: Weight of an additional student level, one to which no
            teacher map is closest, where the closest level of the same map
            has 1. Each teacher map counts the same, however many levels are
            compared with it. Defaults to 0.25, not given in the paper.
        normalizer: Config of what the teachers' features go through before
            they are compared; one is built for each teacher. Defaults to
            None, they are compared as they are.
        projector: Config of the projectors. Defaults to
            ``dict(type='kpu_mm.MLPProjector')``.
        align: Config of L_align. Defaults to
            ``dict(type='kpu_mm.AlignLoss')``.
        balancer: Config of what weighs teachers against each other.
            Defaults to ``dict(type='kpu_mm.EqualBalancer')``.
        backward: 'joint', one backward over all streams as in the paper, or
            'per_stream': the same gradients with the activation memory of
            one stream. Defaults to 'joint'.
        compile: Arguments of ``torch.compile`` for the student and each
            teacher; None compiles nothing. Defaults to None.
        channels_last: Keep convolution weights and images in the
            channels-last layout. Defaults to False.
        init_cfg: Initialisation of the whole distiller. Defaults to None.

    Attributes:
        links: For each teacher, its :class:`TeacherLink`.
        streams: Which teacher sees which streams.

    Raises:
        ValueError: If an option has a value that is not listed, no teacher
            is given, or options do not go together.
    """

    def __init__(
        self,
        student: dict[str, Any],
        teachers: dict[str, dict[str, Any]],
        streams: dict[str, str | Sequence[str]] | None = None,
        terms: dict[str, float] | None = None,
        joined_weight: float = 0.25,
        normalizer: dict[str, Any] | None = None,
        projector: dict[str, Any] | None = None,
        align: dict[str, Any] | None = None,
        balancer: dict[str, Any] | None = None,
        backward: str = 'joint',
        compile: dict[str, Any] | None = None,
        channels_last: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(backward=backward, init_cfg=init_cfg)
        self.terms = dict(terms or dict.fromkeys(TERMS, 1.0))
        _check_options(self.terms, teachers, joined_weight)
        self.streams = TeacherStreams(teachers, streams or {})
        # 'features': the student's own forward is not used, only encode.
        self.student = MODELS.build(student, default_args=dict(out_type='features'))
        self.teachers = TeacherBank(teachers)
        self.align = MODELS.build(align or dict(type='kpu_mm.AlignLoss'))
        _check_terms(self.align, self.terms)
        self.balancer = MODELS.build(
            balancer or dict(type='kpu_mm.EqualBalancer'),
            default_args=dict(teachers=list(teachers), streams=self.streams.of_teacher),
        )
        if backward == 'per_stream' and not self.balancer.separable:
            raise ValueError(
                f'The loss of {type(self.balancer).__name__} is no sum over these streams, which '
                "backward='per_stream' needs: set backward='joint'."
            )
        level_maps = map_levels(
            {name: t.strides for name, t in self.teachers.items()}, self.student.strides
        )
        self.links: Mapping[str, TeacherLink] = nn.ModuleDict(  # type: ignore[assignment]
            {
                name: build_link(
                    level_maps[name],
                    self.student,
                    teacher,
                    self.terms,
                    projector or dict(type='kpu_mm.MLPProjector'),
                    normalizer,
                    joined_weight,
                    self.align.compares_summary,
                )
                for name, teacher in self.teachers.items()
            }
        )
        # The layout of images must be that of the convolutions' weights.
        self.memory_format = torch.contiguous_format
        if channels_last:
            self.memory_format = torch.channels_last
            self.to(memory_format=torch.channels_last)
        if compile is not None:
            # encode calls extract, so the compiled function is what runs.
            self.student.extract = torch.compile(self.student.extract, **compile)
            for teacher in self.teachers.values():
                teacher.compile(**compile)
        used = any(link.needs_summary for link in self.links.values())
        if not used and isinstance(self.student, SentinelBackbone):
            self.student.freeze_summary()
        self._hide_frozen_from_ddp()
        self.second_forward: SecondForward | None = None

    # ---- the method -------------------------------------------------------

    def loss(self, streams: Streams) -> dict[str, Tensor]:
        """L_KPU over the given streams.

        Args:
            streams: For each stream ``images`` (B, 3, H, W), raw RGB in
                [0, 255], and ``mask`` (B, H, W), True where the image is, or
                None where all is.

        Returns:
            ``loss``, and for the log each term, each standard deviation and
            each teacher's weight.
        """
        # All teachers first: FAMO's second forward keeps what they give.
        targets = {
            stream: {
                name: self.links[name].targets(self.teachers[name].encode(*self._inputs(batch)))
                for name in self.streams.of_stream[stream]
            }
            for stream, batch in streams.items()
        }
        if self.balancer.needs_second_loss and torch.is_grad_enabled():
            self._keep_second_forward(streams, targets)
        compared = self.compare(streams, targets)
        # equation 4: the mean over teachers, or as the balancer weighs them
        loss, weights = self.balancer(self.teacher_losses(compared))
        named = {self.streams.label(*key): c for key, c in compared.items()}
        return dict(loss=loss, **log_values(named, weights))

    def compare(self, streams: Streams, targets: Targets) -> dict[tuple[str, str], Comparison]:
        """Compare the student with each teacher on each of its streams.

        Args:
            streams: As :meth:`loss` takes them.
            targets: For each stream and teacher, the normalised features.

        Returns:
            A comparison for each (teacher, stream).
        """
        return {
            (name, stream): self.terms_of(name, student, teacher)
            for stream, batch in streams.items()
            for student in [self.student.encode(*self._inputs(batch))]
            for name, teacher in targets[stream].items()
        }

    def terms_of(self, name: str, student: Features, targets: Features) -> Comparison:
        """The terms of the loss, equations 1 to 3.

        Args:
            name: The teacher.
            student: The student's summary and all of its levels.
            targets: The teacher's summary and all of its maps, normalised.
        """
        link, losses, unified = self.links[name], {}, None
        x, x_t = link.pair(student, targets)
        y, y_t = link.pair_unified(x, x_t)
        if 's2t' in self.terms:
            # equation 1: L_align(h_s2t(X), X^t), in the teacher's space
            losses['s2t'] = self.align(link.to_teacher(x, like=x_t), x_t, link.weights)
        if 't2s' in self.terms:
            unified = link.to_student(y_t, like=y)
            # equation 2: L_align(X, h_t2s(X^t)), in the common space
            losses['t2s'] = self.align(y, unified, link.unified_weights)
            if 'rec' in self.terms:
                # equation 3: L_align(X^t, h_rec(h_t2s(X^t)))
                again = link.reconstruct(unified, like=y_t)
                losses['rec'] = self.align(y_t, again, link.unified_weights)
        return Comparison(losses, x_t, y, unified)

    def teacher_losses(self, compared: Mapping[tuple[str, str], Comparison]) -> dict[str, Tensor]:
        """Each teacher's weighted terms, one value per image, (B,).

        Args:
            compared: What :meth:`compare` gave.
        """
        parts: dict[str, list[Tensor]] = {}
        for (name, _), comparison in compared.items():
            weighted = [self.terms[term] * loss for term, loss in comparison.losses.items()]
            parts.setdefault(name, []).append(torch.stack(weighted).sum(0))
        return {name: self.streams.join(name, losses) for name, losses in parts.items()}

    # ---- what MMEngine calls ----------------------------------------------

    def forward(self, streams: Streams, mode: str = 'loss') -> dict[str, Any]:
        """Losses of the streams, or the student's features of them.

        Args:
            streams: As :meth:`loss` takes them.
            mode: 'loss', or 'tensor' for the student's features by stream.
                Defaults to 'loss'.

        Raises:
            ValueError: If a stream has no teacher, or the mode is another.
        """
        known = self.streams.of_stream
        unknown = set(streams) - set(known)
        if unknown:
            raise ValueError(
                f'streams {sorted(unknown)} have no teacher; the streams of '
                f'the teachers are {sorted(known)}.'
            )
        if mode == 'loss':
            return self.loss(streams)
        if mode == 'tensor':
            return {
                stream: self.student.encode(*self._inputs(batch))
                for stream, batch in streams.items()
            }
        raise ValueError(f"mode={mode!r}: a distiller knows 'loss' and 'tensor'.")

    @property
    def stream_names(self) -> tuple[str, ...]:
        """The streams that the teachers see."""
        return tuple(self.streams.of_stream)

    def check_streams(self, given: Collection[str]) -> None:
        """Compare the streams of a run with those that the model needs.

        Args:
            given: Names of the streams that the run has, or its loaders by name.

        Raises:
            ValueError: If one is missing or takes no part, or the balancer
                does not take its batches.
        """
        super().check_streams(given)
        if not self.balancer.needs_equal_batches or not isinstance(given, Mapping):
            return
        for name, loader in given.items():
            if not getattr(loader.dataset, 'equal_batches', True):
                raise ValueError(
                    f"The batches of stream '{name}' have different numbers of images, which "
                    f'{type(self.balancer).__name__} does not take: choose another balancer, or '
                    'one size.'
                )

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, Mapping[str, float]]:
        """Add the ratio of the teachers' standard deviations to the log."""
        return super().parse_losses({**losses, **std_ratios(losses)})

    def _keep_second_forward(self, streams: Streams, targets: Targets) -> None:
        """Let SecondLossHook measure the losses after the step."""
        if not self.training:
            return
        if self.second_forward is not None:
            raise RuntimeError(
                f'{type(self.balancer).__name__} learns from the losses after '
                "each step: add dict(type='kpu_mm.SecondLossHook') to the "
                'hooks of the config.'
            )
        compare = partial(self.compare, streams, targets)
        self.second_forward = SecondForward(self, lambda: self.teacher_losses(compare()))

    def _inputs(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
        images = batch['images'].contiguous(memory_format=self.memory_format)
        return images, batch.get('mask')


def _check_terms(align: Any, terms: Mapping[str, float]) -> None:
    if not hasattr(align, 'compares_summary'):
        name = type(align).__name__
        raise ValueError(f'{name} must say if it compares summaries: set `compares_summary`.')
    meant = getattr(align, 'terms', TERMS)
    if not set(terms) <= set(meant):
        raise ValueError(
            f'{type(align).__name__} is for the terms {list(meant)} alone, since it tells the '
            f'student from the teacher; terms={dict(terms)}.'
        )


def _check_options(
    terms: Mapping[str, float], teachers: Mapping[str, Any], joined_weight: float
) -> None:
    if not teachers:
        raise ValueError('`teachers` is empty: name at least one teacher.')
    if set(terms) - set(TERMS):
        raise ValueError(f'terms={dict(terms)}: choose from {TERMS}.')
    if 'rec' in terms and 't2s' not in terms:
        raise ValueError(
            "terms: 'rec' reconstructs teachers from 't2s'; switch on both or neither."
        )
    # 0 would leave the level without a gradient, which DDP refuses.
    if not 0 < joined_weight < float('inf'):
        raise ValueError(f'joined_weight={joined_weight}: give a positive number.')
