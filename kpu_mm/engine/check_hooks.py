"""Hooks that compare the data and the backbone with what the heads take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from kpu_mm.datasets import check_label_maps
from kpu_mm.registry import HOOKS

from .model_wrappers import unwrap

_IGNORED = 255  # the label of unlabelled pixels in MMSegmentation
# Modules whose num_classes does not count the classes of the data.
_NO_HEADS = ('rpn_head', 'backbone', 'data_preprocessor')


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Compare the classes of the data with ``num_classes`` of the heads.

    Too large a label ends in a failed assertion somewhere on the GPU. Before
    training, the names of the classes are counted; in each iteration the
    labels themselves are checked, on the CPU before they move on. Models of
    MMDetection, MMSegmentation and MMPretrain, alone or several at once.
    """

    def __init__(self) -> None:
        self._limits: dict[str, int] = {}

    def before_train(self, runner: Runner) -> None:
        """Count the names of the classes.

        Args:
            runner: The runner.

        Raises:
            ValueError: If a head has another number.
        """
        model = unwrap(runner.model)
        loader = runner.train_dataloader
        # the model of one task is the task ''
        loaders = getattr(loader, 'loaders', None) or {'': loader}
        for task, one in loaders.items():
            metainfo = getattr(one.dataset, 'metainfo', None) or {}
            classes = metainfo.get('classes')
            modules = (model.tasks[task] if task else model).named_modules()
            heads = {
                name: count
                for name, module in modules
                # the whole model, '', repeats what a head of it has
                if name
                and not any(part in name for part in _NO_HEADS)
                and isinstance(count := getattr(module, 'num_classes', None), int)
            }
            if heads:
                self._limits[task] = min(heads.values())
            for name, count in heads.items():
                if classes is not None and len(classes) != count:
                    raise ValueError(
                        f'the data have {len(classes)} classes, but {name} '
                        f'has num_classes={count}; set num_classes to '
                        f"{len(classes)}, or the dataset's metainfo."
                    )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check the labels of a batch.

        Args:
            runner: The runner.
            batch_idx: The iteration.
            data_batch: What the loader gave, or ``dict(streams={task:
                batch})`` of that. Defaults to None.

        Raises:
            ValueError: If a label is not below ``num_classes``.
        """
        # A batch of one task is that of the task ''.
        streams = data_batch.get('streams', {'': data_batch})
        for task, limit in self._limits.items():
            for sample in streams[task]['data_samples']:
                labels = _labels(sample)
                if len(labels) and labels.max() >= limit:
                    path = sample.metainfo.get('img_path', 'an image')
                    raise ValueError(
                        f'{path} has label {int(labels.max())}, but num_classes={limit} allows 0 '
                        f'to {limit - 1}; correct num_classes, or how labels are read '
                        '(reduce_zero_label, metainfo).'
                    )


def _labels(sample: Any) -> Tensor:
    """Give all labels of a data sample that count, in one dimension."""
    if 'gt_sem_seg' in sample:
        labels = sample.gt_sem_seg.data
        # (1, H, W) -> (valid pixels,)
        return labels[labels != _IGNORED]
    if 'gt_instances' in sample:
        return sample.gt_instances.labels
    return sample.gt_label


@HOOKS.register_module()
class BackboneCheckHook(Hook):
    """Compare what the backbone gives with what neck or heads take.

    Before a run, for backbones with ``out_channels`` (KPUBackbone,
    TeacherBackbone). Without it a missing stride or another width ends in an
    index or a shape error deep in a head.
    """

    def before_run(self, runner: Runner) -> None:
        """Compare numbers and widths of maps.

        Args:
            runner: The runner.

        Raises:
            ValueError: If they differ.
        """
        model = unwrap(runner.model)
        given = getattr(getattr(model, 'backbone', None), 'out_channels', None)
        # Backbones of other toolboxes do not tell their channels.
        if given is None:
            return
        # Heads after a neck take the neck's maps, so the neck alone counts.
        names = ['neck']
        if getattr(model, 'neck', None) is None:
            names = ['decode_head', 'auxiliary_head', 'head']
        for name in names:
            taker = getattr(model, name, None)
            wanted = getattr(taker, 'in_channels', None)
            if wanted is not None:
                indices = getattr(taker, 'in_index', None)
                _compare(name, wanted, indices, given)


def _compare(
    name: str,
    wanted: int | Sequence[int],
    indices: int | Sequence[int] | None,
    given: Sequence[int],
) -> None:
    """Raise unless the maps that a part takes have the channels it wants."""
    single = isinstance(wanted, int)
    widths = [wanted] if isinstance(wanted, int) else list(wanted)
    if indices is None:
        # a neck takes all maps, a classification head the last one
        found = list(given[-1:] if single else given)
    else:
        places = [indices] if isinstance(indices, int) else list(indices)
        if max(places) >= len(given):
            raise ValueError(
                f'{name} takes map {max(places)} (in_index), but the backbone gives {len(given)} '
                'maps; choose its out_indices or in_index so that they fit.'
            )
        found = [given[i] for i in places]
        if single:  # a head that concatenates several maps
            found = [sum(found)]
    if found != widths:
        raise ValueError(
            f'{name} takes {len(widths)} maps of {widths} channels (in_channels), but the backbone '
            f'gives {len(found)} of {found}; set in_channels, or the out_indices of the backbone.'
        )


@HOOKS.register_module()
class LabelMapHook(Hook):
    """Read some label maps before training and stop if no pixel counts.

    Labels that are all ignored give a loss of 0 and a mean IoU of nan. See
    :func:`kpu_mm.datasets.check_label_maps`.
    """

    def before_train(self, runner: Runner) -> None:
        """Check the training data.

        Args:
            runner: The runner.

        Raises:
            ValueError: If no pixel of the label maps counts.
        """
        loader = runner.train_dataloader
        # the loaders of several tasks, or the one of a single task
        for one in (getattr(loader, 'loaders', None) or {'': loader}).values():
            check_label_maps(one.dataset)
