"""MultiTaskModel: one backbone, whole models of any toolbox on top of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseDataPreprocessor, BaseModel, ModuleDict
from torch import Tensor, nn

from kpu_mm.registry import MODELS

from ..multi_stream_model import MultiStreamModel, Streams
from .backbone_view import BackboneView


@MODELS.register_module()
class MultiTaskModel(MultiStreamModel):
    """Detectors, segmentors and classifiers that train one backbone.

    All decoders of KPU's downstream evaluation
    (https://arxiv.org/abs/2508.14707) are attached to one student and
    trained by one step over a batch of each task. A task is a whole model of
    MMDetection, MMSegmentation or MMPretrain, unchanged, that finds a view
    of the shared backbone where its own would be.

    Args:
        backbone: Config of the shared backbone.
        tasks: For each task's name the config of its model without
            ``backbone``, with ``_scope_`` of its toolbox and its
            ``data_preprocessor``; ``features`` says what it sees of the
            backbone, the arguments of :class:`BackboneView`.
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
            {
                name: _build_task(config, self.backbone)
                for name, config in tasks.items()
            }
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
            name: self.tasks[name]._run_forward(batch, mode=mode)
            for name, batch in streams.items()
        }

    def val_step(self, data: dict[str, Any]) -> dict[str, Any]:
        """Each task's own validation step.

        Args:
            data: ``dict(streams={task: batch})``.

        Returns:
            The predictions by task.
        """
        return {
            name: self.tasks[name].val_step(batch)
            for name, batch in data['streams'].items()
        }

    def test_step(self, data: dict[str, Any]) -> dict[str, Any]:
        """Each task's own test step.

        Args:
            data: ``dict(streams={task: batch})``.

        Returns:
            The predictions by task.
        """
        return {
            name: self.tasks[name].test_step(batch)
            for name, batch in data['streams'].items()
        }


class _TaskPreprocessors(BaseDataPreprocessor):
    """Hands each task's batch to the preprocessor that the task owns."""

    def __init__(self, tasks: Mapping[str, BaseModel]) -> None:
        super().__init__()
        # In a tuple: an attribute that is a module would be registered.
        self._shared = (tasks,)

    def forward(
        self, data: dict[str, Any], training: bool = False
    ) -> dict[str, Any]:
        (tasks,) = self._shared
        return {
            'streams': {
                name: tasks[name].data_preprocessor(batch, training)
                for name, batch in data['streams'].items()
            }
        }


def _build_task(config: dict[str, Any], backbone: nn.Module) -> BaseModel:
    """Build a toolbox's model around a view of the backbone."""
    model = dict(config)
    features = model.pop('features', {})

    # A function, as configs are copied and a copied backbone is not shared.
    def view() -> BackboneView:
        return BackboneView(backbone, **features)

    return MODELS.build({**model, 'backbone': {'type': view}})


def _check(
    tasks: Mapping[str, Mapping[str, Any]], weights: Mapping[str, float]
) -> None:
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
        raise ValueError(
            f'weights: {sorted(unknown)} are no tasks; the tasks are '
            f'{sorted(tasks)}.'
        )
