"""KPUDistiller: several frozen teachers, one student, no labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from ..multi_stream_model import Streams
from ..projectors import resize
from ..projectors.teacher_head import closest_pairs
from ..replay import Replay
from .build_projectors import build_projectors
from .feature_stats import feature_std, std_ratio
from .join_streams import join_streams
from .lesson import Lesson
from .level_pairs import select
from .options import TERMS, check_options
from .taught_student import TaughtStudent


@MODELS.register_module()
class KPUDistiller(TaughtStudent):
    """Knowledge preservation and unification.

    KPU (https://arxiv.org/abs/2508.14707). Teachers stay outside of
    parameters, checkpoints, optimiser and DDP.

    Args:
        student: Config of the student backbone, with ``extract`` and
            ``normalise`` as :class:`KPUBackbone` has them.
        teachers: Configs of the teachers by name.
        streams: For teachers that see the images of a stream of another
            name, that name, or of several, their names. Several teachers
            may share one; for a teacher each of its streams counts the
            same. Defaults to None, each teacher has the stream of its own
            name.
        terms: Weights of the loss terms 's2t' (student to teacher), 't2s'
            (unification) and 'rec' (reconstruction, needs 't2s'); a term
            that is left out is off. Beside 's2t', 't2s' and 'rec' compare
            each teacher map with its closest level alone. Defaults to 1.0
            for all three.
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
        normalizer: dict[str, Any] | None = None,
        projector: dict[str, Any] | None = None,
        align: dict[str, Any] | None = None,
        balancer: dict[str, Any] | None = None,
        backward: str = 'joint',
        compile: dict[str, Any] | None = None,
        channels_last: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        terms = dict(terms or dict.fromkeys(TERMS, 1.0))
        check_options(terms, teachers)
        super().__init__(
            student, teachers, streams, normalizer, backward, init_cfg
        )
        self.terms = terms
        self.align = MODELS.build(align or dict(type='kpu_mm.AlignLoss'))
        self.balancer = MODELS.build(
            balancer or dict(type='kpu_mm.EqualBalancer'),
            default_args=dict(teachers=list(teachers), streams=self.streams),
        )
        if backward == 'per_stream' and not self.balancer.separable:
            raise ValueError(
                f'{type(self.balancer).__name__} weighs the losses of all '
                "streams against each other: set backward='joint'."
            )
        # A level that only joined a coarser map learns from it in s2t, on the
        # map's grid; t2s, on the level's own, would teach it to be as coarse.
        self.unified = {
            name: [
                self.pairs[name][i]
                for i, _ in closest_pairs(levels, self.student.strides)
            ]
            for name, levels in self.level_record.levels.items()
        }
        if 's2t' not in terms:
            self.unified = self.pairs
        self.projectors: Any = build_projectors(
            projector or dict(type='kpu_mm.MLPProjector'),
            {
                term: self.pairs if term == 's2t' else self.unified
                for term in self.terms
            },
            self.student.embed_dims,
            self.teachers,
        )
        if channels_last:
            self.use_channels_last()
        if compile is not None:
            self.compile_models(compile)
        self._hide_frozen_from_ddp()
        self._replay: Replay[dict[str, Tensor]] | None = None

    # ---- the method -------------------------------------------------------

    def terms_of(
        self, name: str, student: Features, teacher: Features
    ) -> tuple[dict[str, Tensor], Features | None]:
        """The loss terms between student X and one teacher X^t.

        Args:
            name: The teacher.
            student: The student's paired maps.
            teacher: The teacher's paired maps.

        Returns:
            Each term as one value per image, (B,), and h_t2s(X^t).
        """
        losses, unified = {}, None
        if 's2t' in self.terms:
            h_s2t = self.projectors['s2t'][name]
            losses['s2t'] = self.align(
                h_s2t(resize(student, like=teacher)), teacher
            )
        if 't2s' in self.terms:
            student, teacher = self.pair_unified(name, student, teacher)
            h_t2s = self.projectors['t2s'][name]
            unified = resize(h_t2s(teacher), like=student)
            losses['t2s'] = self.align(student, unified)
            if 'rec' in self.terms:
                h_rec = self.projectors['rec'][name]
                losses['rec'] = self.align(
                    teacher, h_rec(resize(unified, like=teacher))
                )
        return losses, unified

    def pair_unified(
        self, name: str, student: Features, teacher: Features
    ) -> tuple[Features, Features]:
        """Keep the pairs that take part in t2s and rec.

        These are each teacher map and its closest level; all pairs if s2t is
        off, without which the other levels would learn nothing.

        Args:
            name: The teacher.
            student: The student's paired maps.
            teacher: The teacher's paired maps.
        """
        kept = [self.pairs[name].index(pair) for pair in self.unified[name]]
        return select(student, kept), select(teacher, kept)

    def loss(self, streams: Streams) -> dict[str, Tensor]:
        """L_KPU over the given streams.

        Args:
            streams: For each stream, ``images`` (B, 3, H, W), raw RGB,
                ``mask`` (B, H, W) or None, and perhaps ``features``, by
                teacher what its cache says of the images.

        Returns:
            ``loss``, and for the log each term, each standard deviation and
            each teacher's weight.
        """
        lessons = [self.lesson(name, batch) for name, batch in streams.items()]
        if self.balancer.needs_second_loss:
            self._be_ready_to_look_again(lessons)
        totals, logs = self.compare(lessons)
        loss, weights = self.balancer(totals)
        logs.update({f'weight/{name}': w for name, w in weights.items()})
        return dict(loss=loss, **logs)

    def compare(
        self, lessons: Iterable[Lesson]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """How far the student is from the teachers.

        Args:
            lessons: What :meth:`lesson` gave for each stream.

        Returns:
            Each teacher's loss, (B,), and terms and deviations for the log.
        """
        totals: dict[str, list[Tensor]] = {}
        logs = {}
        for stream, inputs, teachers in lessons:
            student = self.see(**inputs)
            for name, teacher in teachers.items():
                x, x_t = self.pair(name, student, teacher)
                losses, unified = self.terms_of(name, x, x_t)
                total = torch.stack(
                    [self.terms[term] * loss for term, loss in losses.items()]
                ).sum(0)
                totals.setdefault(name, []).append(total)
                label = self.label(name, stream)
                for term, loss in losses.items():
                    logs[f'{term}/{label}'] = loss.detach().mean()
                logs[f'std/{label}'] = feature_std(x_t)
                if unified is not None:
                    logs[f'std_t2s/{label}'] = feature_std(unified)
        return {
            name: join_streams(parts, len(self.streams[name]))
            for name, parts in totals.items()
        }, logs

    def after_step(self, moved: bool) -> None:
        """Let the balancer compare the losses before and after the step.

        Args:
            moved: Whether the optimiser has changed the parameters.
        """
        replay, self._replay = self._replay, None
        if moved and replay is not None:
            self.balancer.after_step(replay())

    def _be_ready_to_look_again(self, lessons: list[Lesson]) -> None:
        if not (self.training and torch.is_grad_enabled()):
            return
        if self._replay is not None:
            raise RuntimeError(
                f'{type(self.balancer).__name__} learns from the losses after '
                "each step, which the run's train step does not give it: use "
                "MMEngine's Runner or SingleDeviceStrategy, for several "
                'processes with kpu_mm.KPUDistributedDataParallel.'
            )
        self._replay = Replay(self, lambda: self.compare(lessons)[0])

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
        unknown = set(streams) - set(self.taught_by)
        if unknown:
            raise ValueError(
                f'streams {sorted(unknown)} have no teacher; the teachers '
                f'see {sorted(self.taught_by)}.'
            )
        if mode == 'loss':
            return self.loss(streams)
        if mode == 'tensor':
            return {
                name: self.student.extract(
                    self.student.normalise(**self._inputs(batch))
                )
                for name, batch in streams.items()
            }
        raise ValueError(
            f"mode={mode!r}: a distiller knows 'loss' and 'tensor'."
        )

    def parse_losses(
        self, losses: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """Add the ratio of the teachers' standard deviations to the log."""
        logs = dict(losses)
        for key in ('std', 'std_t2s'):
            stds = {k: v for k, v in losses.items() if k.startswith(key + '/')}
            if len(stds) > 1:
                logs[f'{key}_ratio'] = std_ratio(stds)
        return super().parse_losses(logs)
