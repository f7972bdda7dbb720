"""Refuse labels that the heads have no class for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from kpu_mm.registry import HOOKS

_IGNORED = 255  # of segmentation labels, in MMSegmentation
# whose num_classes does not count the classes of the data
_OTHERS = ('rpn_head', 'backbone', 'data_preprocessor')


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
        model = _unwrap(runner.model)
        loader = runner.train_dataloader
        loaders = getattr(loader, 'loaders', None) or {'': loader}
        for task, one in loaders.items():
            metainfo = getattr(one.dataset, 'metainfo', None) or {}
            classes = metainfo.get('classes')
            heads = dict(_heads(model.tasks[task] if task else model))
            if heads:
                self._limits[task] = min(heads.values())
            for name, count in heads.items():
                if classes is not None and len(classes) != count:
                    raise ValueError(
                        f'the data have {len(classes)} classes, but {name} '
                        f'has num_classes={count}; set num_classes to '
                        f"{len(classes)}, or the dataset's metainfo."
                    )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Check the labels of a batch.

        Args:
            runner: The runner.
            batch_idx: The iteration.
            data_batch: What the loader gave, or ``dict(streams={task:
                batch})`` of that. Defaults to None.

        Raises:
            ValueError: If a label is not below ``num_classes``.
        """
        streams = data_batch.get('streams', {'': data_batch})
        for task, limit in self._limits.items():
            for sample in streams[task]['data_samples']:
                labels = _labels(sample)
                if len(labels) and labels.max() >= limit:
                    path = sample.metainfo.get('img_path', 'an image')
                    raise ValueError(
                        f'{path} has label {int(labels.max())}, but '
                        f'num_classes={limit} allows 0 to {limit - 1}; '
                        'correct num_classes, or how labels are read '
                        '(reduce_zero_label, metainfo).'
                    )


def _unwrap(model: nn.Module) -> Any:
    return model.module if is_model_wrapper(model) else model


def _heads(model: nn.Module) -> Iterator[tuple[str, int]]:
    for name, module in model.named_modules():
        count = getattr(module, 'num_classes', None)
        # the whole model, '', repeats what a head of it has
        other = not name or any(part in name for part in _OTHERS)
        if isinstance(count, int) and not other:
            yield name, count


def _labels(sample: Any) -> Tensor:
    """All labels of a data sample that count, in one dimension."""
    if 'gt_sem_seg' in sample:
        labels = sample.gt_sem_seg.data
        return labels[labels != _IGNORED]
    if 'gt_instances' in sample:
        return sample.gt_instances.labels
    return sample.gt_label
