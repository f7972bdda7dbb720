"""KPUDistiller: several frozen teachers, one student, no labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kpu_mm.registry import MODELS
from kpu_mm.structures import Features

from ..level_record import LevelRecord, TeacherLevels
from ..multi_stream_model import MultiStreamModel, Streams
from ..projectors import resize
from ..teachers import TeacherBank
from .feature_stats import feature_std, std_ratio
from .level_pairs import pair_levels

TERMS = ('s2t', 't2s', 'rec')


@MODELS.register_module()
class KPUDistiller(MultiStreamModel):
    """Knowledge preservation and unification.

    KPU (https://arxiv.org/abs/2508.14707). Teachers stay outside of
    parameters, checkpoints, optimiser and DDP.

    Args:
        student: Config of the student backbone, with ``extract`` and
            ``normalise`` as :class:`KPUBackbone` has them.
        teachers: Configs of the teachers by name; each learns from the
            stream of the same name.
        terms: Weights of the loss terms 's2t' (student to teacher), 't2s'
            (unification) and 'rec' (reconstruction, needs 't2s'); a term
            that is left out is off. Defaults to 1.0 for all three.
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
        ValueError: If an option has a value that is not listed, or no
            teacher is given.
    """

    def __init__(
        self,
        student: dict[str, Any],
        teachers: dict[str, dict[str, Any]],
        terms: dict[str, float] | None = None,
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
        _check(self.terms, teachers)
        self.student = MODELS.build(
            student, default_args=dict(out_type='features')
        )
        self.teachers = TeacherBank(teachers)
        self.align = MODELS.build(align or dict(type='kpu_mm.AlignLoss'))
        self.balancer = MODELS.build(
            balancer or dict(type='kpu_mm.EqualBalancer'),
            default_args=dict(teachers=list(teachers)),
        )
        self.pairs = pair_levels(
            {name: t.strides for name, t in self.teachers.items()},
            self.student.strides,
        )
        self.level_record = LevelRecord(
            {
                name: TeacherLevels(teacher.strides, tuple(self.pairs[name]))
                for name, teacher in self.teachers.items()
            }
        )
        self._build_projectors(projector or dict(type='kpu_mm.MLPProjector'))
        self.memory_format = torch.contiguous_format
        if channels_last:
            self.memory_format = torch.channels_last
            self.to(memory_format=torch.channels_last)
        if compile is not None:
            self.student.extract = torch.compile(
                self.student.extract, **compile
            )
            for _, teacher in self.teachers.items():
                teacher.compile(**compile)
        self._hide_frozen_from_ddp()

    def _build_projectors(self, cfg: dict[str, Any]) -> None:
        """s2t and rec lead into each teacher's space, t2s out of it."""
        dims = self.student.embed_dims
        projectors = {term: nn.ModuleDict() for term in self.terms}
        for name, teacher in self.teachers.items():
            summary = teacher.summary_channels
            channels = [teacher.channels[i] for i, _ in self.pairs[name]]
            student = dict(
                in_summary=summary and dims, in_channels=[dims] * len(channels)
            )
            into = dict(student, out_summary=summary, out_channels=channels)
            out_of = dict(
                in_summary=summary,
                in_channels=channels,
                out_summary=summary and dims,
                out_channels=[dims] * len(channels),
            )
            for term, modules in projectors.items():
                modules[name] = MODELS.build(
                    cfg, default_args=out_of if term == 't2s' else into
                )
        self.projectors: Any = nn.ModuleDict(projectors)

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
            h_t2s = self.projectors['t2s'][name]
            unified = resize(h_t2s(teacher), like=student)
            losses['t2s'] = self.align(student, unified)
            if 'rec' in self.terms:
                h_rec = self.projectors['rec'][name]
                losses['rec'] = self.align(
                    teacher, h_rec(resize(unified, like=teacher))
                )
        return losses, unified

    def loss(self, streams: Streams) -> dict[str, Tensor]:
        """L_KPU over the given streams.

        Args:
            streams: For each teacher, ``images`` (B, 3, H, W), raw RGB, and
                ``mask`` (B, H, W) or None.

        Returns:
            ``loss``, and for the log each term and each standard deviation.
        """
        totals, logs = {}, {}
        for name, batch in streams.items():
            student, teacher = self.extract(name, **_inputs(batch))
            losses, unified = self.terms_of(name, student, teacher)
            totals[name] = torch.stack(
                [self.terms[term] * loss for term, loss in losses.items()]
            ).sum(0)
            for term, loss in losses.items():
                logs[f'{term}/{name}'] = loss.detach().mean()
            logs[f'std/{name}'] = feature_std(teacher)
            if unified is not None:
                logs[f'std_t2s/{name}'] = feature_std(unified)
        return dict(loss=self.balancer(totals), **logs)

    def extract(
        self, name: str, images: Tensor, mask: Tensor | None = None
    ) -> tuple[Features, Features]:
        """Student's and teacher's features of the same images, map by map.

        Args:
            name: The teacher.
            images: (B, 3, H, W), raw RGB in [0, 255].
            mask: (B, H, W) bool, True where the image is; None where all is.
        """
        images = images.contiguous(memory_format=self.memory_format)
        teacher = self.teachers[name](images, mask)
        student = self.student.extract(self.student.normalise(images, mask))
        student = student._replace(masks=_level_masks(student, mask))
        maps, levels = zip(*self.pairs[name], strict=True)
        return student.select(levels), teacher.select(maps)

    # ---- what MMEngine calls ----------------------------------------------

    def forward(self, streams: Streams, mode: str = 'loss') -> dict[str, Any]:
        """Losses of the streams, or the student's features of them.

        Args:
            streams: As :meth:`loss` takes them.
            mode: 'loss', or 'tensor' for the student's features by stream.
                Defaults to 'loss'.

        Raises:
            ValueError: If a stream names no teacher, or the mode is another.
        """
        unknown = set(streams) - set(self.pairs)
        if unknown:
            raise ValueError(
                f'streams {sorted(unknown)} have no teacher; the teachers '
                f'are {sorted(self.pairs)}.'
            )
        if mode == 'loss':
            return self.loss(streams)
        if mode == 'tensor':
            return {
                name: self.student.extract(
                    self.student.normalise(**_inputs(batch))
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

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        """Take the teachers along when the model moves."""
        super()._apply(fn, recurse)
        self.teachers.apply(fn)
        return self


def _inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    return dict(images=batch['images'], mask=batch.get('mask'))


def _level_masks(
    features: Features, mask: Tensor | None
) -> tuple[Tensor, ...] | None:
    """Pixel mask (B, H, W) -> for each map (B, 1, H_i, W_i), nearest."""
    if mask is None:
        return None
    return tuple(
        F.interpolate(mask[:, None].float(), m.shape[-2:]).bool()
        for m in features.maps
    )


def _check(terms: Mapping[str, float], teachers: Mapping[str, Any]) -> None:
    if not teachers:
        raise ValueError('`teachers` is empty: name at least one teacher.')
    unknown = set(terms) - set(TERMS)
    if unknown or not terms:
        raise ValueError(
            f'terms={dict(terms)}: choose from {TERMS}, one at least.'
        )
    if 'rec' in terms and 't2s' not in terms:
        raise ValueError(
            "terms: 'rec' reconstructs teachers from 't2s'; switch on both "
            'or neither.'
        )
