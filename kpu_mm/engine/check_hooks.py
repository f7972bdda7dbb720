"""Hooks that compare the data and the backbone with what the heads take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn

from kpu_mm.datasets import DataError, check_label_maps
from kpu_mm.datasets.class_names import (
    ClassNames,
    as_metainfo,
    difference,
    find_names,
    names_in_meta,
)
from kpu_mm.registry import HOOKS

from .model_wrappers import unwrap

_IGNORED = 255  # the label of unlabelled pixels in MMSegmentation
# Modules whose num_classes does not count the classes of the data: proposals,
# the stuff of COCO in HTC, and by type the borders of objects in STDC.
_NO_HEADS = (
    *('rpn_head', 'roi_head.semantic_head', 'backbone', 'encoder', 'teacher'),
    'data_preprocessor',
)
_BORDERS = 'STDCHead'


@HOOKS.register_module()
class ClassNamesHook(Hook):
    """Compare the classes of all data, of the heads and of the checkpoint.

    Labels are numbers, so data whose classes have another order train and
    test without an error, and wrongly. Before a run, names are compared in
    their order: those of ``metainfo`` with the annotation file or the folders,
    and those of training, validation, test and k-NN bank with each other;
    their number with ``num_classes``. A checkpoint to be tested or resumed
    must have the same names. In each training iteration the labels themselves
    are checked, on the CPU before they move on. Models of MMDetection,
    MMSegmentation and MMPretrain, alone or several at once.

    Args:
        strict: Whether other names in other data or in the checkpoint are an
            error; else a warning. Defaults to True.
    """

    def __init__(self, strict: bool = True) -> None:
        self.strict = strict
        # By task; the model of one task is the task ''.
        self._names: dict[str, ClassNames] = {}
        self._limits: dict[str, int] = {}

    def before_run(self, runner: Runner) -> None:
        """Compare names and numbers.

        Args:
            runner: The runner, whose loops are built.

        Raises:
            DataError: If names differ.
            ValueError: If a head has another number of classes.
        """
        for place, task, dataset, metrics in _datasets(runner):
            for names in find_names(dataset, place):
                first = self._names.setdefault(task, names)
                if text := difference(first, names):
                    same = 'the same reduce_zero_label'
                    if first.folders and names.folders and first.folders != names.folders:
                        same = 'the same folders'
                    elif first.classes and first.classes != names.classes:
                        same = as_metainfo(first.classes)
                    self._report(runner, f'{text}; give both {same}.')
                for metric in metrics:
                    _check_metric(metric, names)
        model = unwrap(runner.model)
        for task, names in self._names.items():
            counts = count_classes(model.tasks[task] if task else model)
            if counts:
                # Panoptic heads share the classes: one has things, another the rest.
                panoptic = len(names.counts) > 1
                self._limits[task] = names.counts[0] if panoptic else min(counts.values())
            for name, count in counts.items():
                if names.counts and count not in names.counts:
                    total = names.counts[0]
                    raise ValueError(
                        f'{names.place} have {total} classes, but {name} has '
                        f"num_classes={count}; set num_classes to {total}, or the dataset's "
                        'metainfo.'
                    )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare the names of a checkpoint.

        A run that starts from ``load_from`` may have other classes: heads of
        another size are new, and heads of the same size are worth a warning.

        Args:
            runner: The runner.
            checkpoint: The checkpoint.

        Raises:
            DataError: If it is tested or resumed with other names.
        """
        meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
        starts = isinstance(runner._train_loop, BaseLoop) and not runner._resume
        for task, names in self._names.items():
            saved = names_in_meta(meta.get(task) or {} if task else meta, 'the checkpoint')
            text = difference(saved, names)
            if text is None or saved.classes is None:
                continue
            if not starts:
                self._report(
                    runner,
                    f'{text}; use the data and the checkpoint of the same classes, or write for '
                    f'the dataset {as_metainfo(saved.classes)}',
                )
            elif len(saved.classes) in names.counts:
                runner.logger.warning(
                    f'load_from: {text}; heads of the same size start from the weights of other '
                    'classes.'
                )

    def _report(self, runner: Runner, text: str) -> None:
        if self.strict:
            raise DataError(text)
        runner.logger.warning(text)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Check the labels of a batch.

        Args:
            runner: The runner.
            batch_idx: The iteration.
            data_batch: What the loader gave, or ``dict(streams={task:
                batch})`` of that. Defaults to None.

        Raises:
            DataError: If a label is not below ``num_classes``.
        """
        # A batch of one task is that of the task ''.
        streams = data_batch.get('streams', {'': data_batch})
        for task, limit in self._limits.items():
            for sample in streams[task]['data_samples']:
                labels = _labels(sample)
                if len(labels) and labels.max() >= limit:
                    path = sample.metainfo.get('img_path', 'an image')
                    raise DataError(
                        f'{path} has label {int(labels.max())}, but num_classes={limit} allows 0 '
                        f'to {limit - 1}; correct num_classes, or how labels are read '
                        '(reduce_zero_label, metainfo).'
                    )


def count_classes(model: nn.Module) -> dict[str, int]:
    """Ask the heads of a model for how many classes they have.

    Args:
        model: A model of any toolbox.

    Returns:
        ``num_classes`` by the names of the modules; none for detectors that
        take a prompt, of which it is the number of tokens.
    """
    if hasattr(model, 'language_model'):
        return {}
    counts = {
        name: count
        for name, module in model.named_modules()
        if not any(part in name for part in _NO_HEADS)
        and type(module).__name__ != _BORDERS
        and isinstance(count := getattr(module, 'num_classes', None), int)
    }
    # The whole model, '', repeats what a head of it has, if it has heads.
    whole = counts.pop('', None)
    return counts or ({} if whole is None else {'the model': whole})


def _datasets(runner: Runner) -> Iterator[tuple[str, str, Any, list[Any]]]:
    """What each dataset of a run is for, its task, and its metrics."""
    loops = dict(training=runner._train_loop, validation=runner._val_loop, test=runner._test_loop)
    for stage, loop in loops.items():
        # A loop that does not run now is a config.
        if not isinstance(loop, BaseLoop):
            continue
        if bank := getattr(loop, 'bank_dataloader', None):
            yield 'the data of the bank', '', bank.dataset, []
        loader: Any = loop.dataloader
        loaders = getattr(loop, 'dataloaders', None) or getattr(loader, 'loaders', {'': loader})
        evaluators = getattr(loop, 'evaluators', {'': getattr(loop, 'evaluator', None)})
        for task, one in loaders.items():
            metrics = getattr(evaluators.get(task), 'metrics', [])
            yield f'the {stage} data', task, one.dataset, metrics


def _check_metric(metric: Any, names: ClassNames) -> None:
    """Raise if the file of one of MMDetection's metrics has another order."""
    api = getattr(metric, '_coco_api', None)
    if api is None or names.classes is None:
        return
    ids = api.get_cat_ids(cat_names=list(names.classes))
    # A panoptic model's boxes are compared with a file of the things, which come first.
    if len(names.counts) > 1 and len(ids) <= names.counts[1]:
        names = names._replace(classes=names.classes[: names.counts[1]])
    file = ClassNames("the evaluator's ann_file", tuple(api.cats[i]['name'] for i in ids))
    if text := difference(file, names):
        raise DataError(f'{text}; give the evaluator the annotation file of its dataset.')


def _labels(sample: Any) -> Tensor:
    """Give all labels of a data sample that count, in one dimension."""
    if 'gt_sem_seg' in sample:
        seg = sample.gt_sem_seg
        # MMDetection's name, and MMSegmentation's.
        labels = seg.sem_seg if 'sem_seg' in seg else seg.data
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
