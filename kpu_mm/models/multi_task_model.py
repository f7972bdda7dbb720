"""MultiTaskModel: one backbone, whole models of any toolbox on top of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseDataPreprocessor, BaseModel, BaseModule, ModuleDict
from torch import Tensor, nn

from kpu_mm.registry import MODELS

from .backbones.base_backbone import Outputs
from .multi_stream_model import MultiStreamModel, Streams


@MODELS.register_module()
class MultiTaskModel(MultiStreamModel):
    """Detectors, segmentors and classifiers that train one backbone.

    All decoders of KPU's downstream evaluation
    (https://arxiv.org/abs/2508.14707) are attached to one student and
    trained by one step over a batch of each task. A task is a whole model of
    MMDetection, MMSegmentation or MMPretrain, unchanged, with a view of the
    shared backbone in place of its own.

    Args:
        backbone: Config of the shared backbone.
        tasks: For each task's name the config of its model without
            ``backbone``, with ``_scope_`` of its toolbox and its
            ``data_preprocessor``; ``features`` are the arguments of its
            :class:`BackboneView`.
        weights: Weight of each task's loss. Defaults to None, 1.0 for all.
        backward: 'joint', one backward over all tasks as in the paper, or
            'per_stream': the same gradients with the activation memory of
            one task. Defaults to 'joint'.
        init_cfg: Initialisation of the whole model. Defaults to None.

    Raises:
        ValueError: If there is no task, a task has a backbone of its own,
            or a weight is given to none of the tasks.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        tasks: dict[str, dict[str, Any]],
        weights: dict[str, float] | None = None,
        backward: str = 'joint',
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(backward=backward, init_cfg=init_cfg)
        _check(tasks, weights or {})
        self.weights = {**dict.fromkeys(tasks, 1.0), **(weights or {})}
        self.backbone = MODELS.build(backbone)
        self.tasks = ModuleDict(
            {name: _build_task(config, self.backbone) for name, config in tasks.items()}
        )
        self.data_preprocessor = _TaskPreprocessors(self.tasks)
        self._hide_frozen_from_ddp()

    @property
    def stream_names(self) -> tuple[str, ...]:
        """Each task has a stream of its name."""
        return tuple(self.tasks)

    def loss(self, streams: Streams) -> dict[str, Tensor]:
        """Weighted sum of the tasks' losses.

        Args:
            streams: For each task, a batch as its data preprocessor gives
                it.

        Returns:
            ``loss``, and for the log all values of each task, unweighted,
            with its name in front: ``<task>/loss``, ``<task>/loss_cls``.
        """
        total, logs = 0, {}
        for name, batch in streams.items():
            task = self.tasks[name]
            # the call that unpacks a toolbox's batch for its model
            losses = task._run_forward(batch, mode='loss')
            loss, values = task.parse_losses(losses)
            total = total + self.weights[name] * loss
            logs.update({f'{name}/{k}': v.detach() for k, v in values.items()})
        return dict(loss=total, **logs)

    def forward(self, streams: Streams, mode: str = 'loss') -> dict[str, Any]:
        """Losses, predictions or features of each task.

        Args:
            streams: For each task, a batch as its data preprocessor gives
                it.
            mode: 'loss', 'predict' or 'tensor', as OpenMMLab's models take
                it. Defaults to 'loss'.

        Returns:
            For 'loss' as :meth:`loss`, else what each task's model gives,
            by task.
        """
        if mode == 'loss':
            return self.loss(streams)
        return {
            name: self.tasks[name]._run_forward(batch, mode=mode) for name, batch in streams.items()
        }

    def val_step(self, data: dict[str, Any]) -> dict[str, Any]:
        """Each task's own validation step.

        Args:
            data: ``dict(streams={task: batch})``.

        Returns:
            The predictions by task.
        """
        return {name: self.tasks[name].val_step(batch) for name, batch in data['streams'].items()}

    def test_step(self, data: dict[str, Any]) -> dict[str, Any]:
        """Each task's own test step.

        Args:
            data: ``dict(streams={task: batch})``.

        Returns:
            The predictions by task.
        """
        return {name: self.tasks[name].test_step(batch) for name, batch in data['streams'].items()}


class _TaskPreprocessors(BaseDataPreprocessor):
    """Hands each task's batch to the preprocessor that the task owns."""

    def __init__(self, tasks: Mapping[str, BaseModel]) -> None:
        super().__init__(non_blocking=True)
        # In a tuple: nn.Module would register the tasks a second time.
        self._shared = (tasks,)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        (tasks,) = self._shared
        return {
            'streams': {
                # copied here, as not every toolbox's waits for no copy
                name: tasks[name].data_preprocessor(self.cast_data(batch), training)
                for name, batch in data['streams'].items()
            }
        }


class BackboneView(BaseModule):
    """The shared backbone as one task's model uses it.

    The backbone's parameters belong to the multi-task model, which counts,
    saves and trains them. If a pyramid has to be learnt from the backbone's
    maps, each task learns its own.

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
        _check_view(backbone, self._outputs)
        self.levels: nn.Module | None = None
        build: Any = getattr(backbone, 'build_levels', None)
        if out_type == 'pyramid' and build is not None:
            self.levels = build(out_indices)
        # In a tuple: nn.Module would register it, and count it per task.
        self._shared: tuple[Any] = (backbone,)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features of normalised images, as the task's model takes them.

        Args:
            images: (B, 3, H, W).

        Returns:
            The chosen maps, each (B, C_i, H_i, W_i), or one tensor (B, C).
        """
        (backbone,) = self._shared
        # a backbone of OpenMMLab, which gives maps only
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


def _build_task(config: dict[str, Any], backbone: nn.Module) -> BaseModel:
    """Build a toolbox's model around a view of the backbone."""
    model = dict(config)
    features = model.pop('features', {})

    # A function as the type: toolboxes copy configs, and a copy of the
    # backbone would not be shared.
    def view() -> BackboneView:
        return BackboneView(backbone, **features)

    return MODELS.build({**model, 'backbone': {'type': view}})


def _check(tasks: Mapping[str, Mapping[str, Any]], weights: Mapping[str, float]) -> None:
    if not tasks:
        raise ValueError('`tasks` is empty: name at least one task.')
    for name, config in tasks.items():
        if 'backbone' in config:
            raise ValueError(
                f"task '{name}' has a `backbone` of its own: remove it, and "
                'say with `features` what the task needs of the shared one.'
            )
    unknown = set(weights) - set(tasks)
    if unknown:
        raise ValueError(f'weights: {sorted(unknown)} are no tasks; the tasks are {sorted(tasks)}.')


def _check_view(backbone: Any, wanted: Outputs) -> None:
    """Raise if a shared backbone has not the outputs that a task needs."""
    name = type(backbone).__name__
    if not hasattr(backbone, 'extract'):
        if wanted.kind != 'pyramid':
            raise ValueError(f'{name} gives a pyramid only, but out_type={wanted.kind!r}.')
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
                f'{name} gives no maps {sorted(missing)}; add them to its out_indices.'
            )
