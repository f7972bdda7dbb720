import json
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmdet.structures import DetDataSample
from mmengine.runner import BaseLoop
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.models import FCNHead, UPerHead
from mmseg.structures import SegDataSample
from torch import nn

from kpu_mm.engine.check_hooks import BackboneCheckHook, ClassNamesHook


def head(count):
    module = nn.Linear(1, 1)
    module.num_classes = count
    return module


class STDCHead(nn.Module):
    """By its name MMSegmentation's, which finds borders of objects."""

    num_classes = 2


def model_of(count):
    model = nn.Module()
    model.head = head(count)
    model.rpn_head = head(1)  # object or not: no class of the data
    model.roi_head = nn.Module()
    model.roi_head.semantic_head = head(183)  # things and stuff, in HTC
    model.borders = STDCHead()  # border or not
    return model


def loader(length=None):
    metainfo = {} if length is None else dict(classes=('x',) * length)
    return SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo))


class Loop(BaseLoop):
    """A loop of which hooks see the loader."""

    def __init__(self, loader):
        self.dataloader = loader
        self.evaluator = SimpleNamespace(metrics=[])

    def run(self):
        """Nothing runs."""


def runner(model, train=None, val=None, test=None, resume=False):
    """A runner as hooks see it; None is a loop that is not built."""
    train, val, test = (one and Loop(one) for one in (train, val, test))
    return SimpleNamespace(
        model=model,
        logger=Mock(),
        _train_loop=train,
        _val_loop=val,
        _test_loop=test,
        _resume=resume,
    )


def classified(label):
    return DataSample().set_gt_label(label)


def segmented(label):
    labels = torch.full((1, 4, 4), 255)
    labels[0, 1, 1] = label
    return SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=dict(img_path='b.jpg'))


def detected(label):
    return DetDataSample(gt_instances=InstanceData(labels=torch.tensor([0, label])))


def segmented_by_mmdet(label):
    labels = segmented(label).gt_sem_seg.data
    return DetDataSample(gt_sem_seg=PixelData(sem_seg=labels), gt_instances=InstanceData())


SAMPLES = (classified, segmented, detected, segmented_by_mmdet)


def test_names_of_classes():
    ClassNamesHook().before_run(runner(model_of(5), loader(5)))
    ClassNamesHook().before_run(runner(model_of(5), loader()))
    with pytest.raises(ValueError, match='have 6 classes, but head has'):
        ClassNamesHook().before_run(runner(model_of(5), loader(6)))


def test_several_tasks():
    model = nn.Module()
    model.tasks = nn.ModuleDict(dict(a=model_of(5), b=model_of(3)))
    loaders = SimpleNamespace(loaders=dict(a=loader(5), b=loader(3)))
    hook = ClassNamesHook()
    hook.before_run(runner(model, loaders))
    batches = {k: dict(data_samples=[classified(2)]) for k in 'ab'}
    hook.before_train_iter(None, 0, dict(streams=batches))
    batches['b'] = dict(data_samples=[segmented(3)])
    with pytest.raises(ValueError, match=r'b\.jpg has label 3, but num_cl'):
        hook.before_train_iter(None, 0, dict(streams=batches))


@pytest.mark.parametrize('sample', SAMPLES)
def test_labels(sample):
    hook = ClassNamesHook()
    hook.before_run(runner(model_of(5), loader()))
    batch = dict(data_samples=[sample(0), sample(4)])
    hook.before_train_iter(None, 0, batch)
    batch = dict(data_samples=[sample(0), sample(5)])
    with pytest.raises(ValueError, match='num_classes=5 allows 0 to 4'):
        hook.before_train_iter(None, 0, batch)


def test_labels_of_panoptic_heads():
    model = model_of(3)  # things
    model.semantic_head = head(3)  # stuff, and all things as one
    hook = ClassNamesHook()
    hook.before_run(runner(model, named((*ANIMALS, 'sky', 'sea'), **STUFF)))
    hook.before_train_iter(None, 0, dict(data_samples=[segmented_by_mmdet(4)]))
    with pytest.raises(ValueError, match='label 5, but num_classes=5 allows 0 to 4'):
        hook.before_train_iter(None, 0, dict(data_samples=[segmented_by_mmdet(5)]))


def test_empty_image():
    hook = ClassNamesHook()
    hook.before_run(runner(model_of(5), loader()))
    none = InstanceData(labels=torch.zeros(0, dtype=torch.long))
    batch = dict(data_samples=[DetDataSample(gt_instances=none)])
    hook.before_train_iter(None, 0, batch)


@pytest.mark.parametrize('sample', [classified(255), detected(255)])
def test_255_is_a_class_but_of_segmentation(sample):
    hook = ClassNamesHook()
    run = runner(model_of(5), loader())
    hook.before_run(run)
    with pytest.raises(ValueError, match='label 255'):
        hook.before_train_iter(run, 0, dict(data_samples=[sample]))


def check(given, **parts):
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.out_channels = given
    for name, part in parts.items():
        setattr(model, name, part)
    BackboneCheckHook().before_run(SimpleNamespace(model=model))


def uper_head(channels, index):
    return UPerHead(in_channels=channels, in_index=index, channels=4, num_classes=2)


def neck(channels):
    module = nn.Module()
    module.in_channels = channels
    return module


def test_segmentation_heads():
    head = uper_head([8] * 4, [0, 1, 2, 3])
    check((8, 8, 8, 8), decode_head=head)
    with pytest.raises(ValueError, match=r'takes map 3 .* gives 3 maps'):
        check((8, 8, 8), decode_head=head)
    with pytest.raises(ValueError, match=r'decode_head takes 4 maps of'):
        check((8, 8, 9, 8), decode_head=head)
    joined = FCNHead(
        in_channels=[8, 8],
        in_index=[0, 1],
        input_transform='resize_concat',
        channels=4,
        num_classes=2,
    )
    check((8, 8), decode_head=joined)
    aside = FCNHead(in_channels=8, in_index=2, channels=4, num_classes=2)
    check((9, 9, 8), auxiliary_head=aside)
    with pytest.raises(ValueError, match='auxiliary_head takes map 2'):
        check((8, 8), auxiliary_head=aside)


def test_necks_and_classification_heads():
    # a head after a neck sees the neck's maps
    check((8, 8), neck=neck([8, 8]), head=neck(3))
    with pytest.raises(ValueError, match=r'neck takes 4 maps'):
        check((8, 8), neck=neck([8] * 4))
    check((9, 8), head=neck(8))
    with pytest.raises(ValueError, match=r'head takes 1 maps of \[8\]'):
        check((16,), head=neck(8))


def test_backbones_that_do_not_say():
    model = nn.Module()
    model.backbone = nn.Module()
    BackboneCheckHook().before_run(SimpleNamespace(model=model))


ANIMALS = ('ant', 'bee', 'fly')
STUFF = dict(thing_classes=ANIMALS, stuff_classes=('sky', 'sea'))


def named(classes, **metainfo):
    return SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=classes, **metainfo)))


def test_the_same_names_in_all_data():
    data = [named(ANIMALS), named(list(ANIMALS))]
    ClassNamesHook().before_run(runner(model_of(3), *data))
    other = named(('ant', 'fly', 'bee'))
    message = "class 1 is 'bee' in the training data, but 'fly' in the validation data"
    with pytest.raises(ValueError, match=message):
        ClassNamesHook().before_run(runner(model_of(3), data[0], other))
    # not strict: a warning
    run = runner(model_of(3), data[0], other)
    ClassNamesHook(strict=False).before_run(run)
    assert message in run.logger.warning.call_args[0][0]


def test_labels_of_segmentation_begin_alike():
    data = [named(ANIMALS, reduce_zero_label=value) for value in (True, False)]
    with pytest.raises(ValueError, match='reduce_zero_label is True in the training'):
        ClassNamesHook().before_run(runner(model_of(3), *data))


def test_detectors_that_take_a_prompt_count_tokens():
    model = model_of(256)
    model.language_model = nn.Module()
    ClassNamesHook().before_run(runner(model, test=named(ANIMALS)))


def test_number_of_classes_in_a_test():
    with pytest.raises(ValueError, match='the test data have 3 classes, but head has num_cl'):
        ClassNamesHook().before_run(runner(model_of(4), test=named(ANIMALS)))


def test_the_bank_of_knn():
    run = runner(model_of(3), test=named(ANIMALS))
    run._test_loop.bank_dataloader = named(ANIMALS[1:])
    with pytest.raises(ValueError, match="the data of the bank, but 'ant' in the test data"):
        ClassNamesHook().before_run(run)
    # k-NN has no head
    model = nn.Module()
    model.num_classes = 4
    with pytest.raises(ValueError, match='but the model has num_classes=4'):
        ClassNamesHook().before_run(runner(model, test=named(ANIMALS)))


def test_names_of_each_task():
    model = nn.Module()
    model.tasks = nn.ModuleDict(dict(a=model_of(3), b=model_of(2)))
    loaders = dict(a=named(ANIMALS), b=named(('x', 'y')))
    run = runner(model, SimpleNamespace(loaders=loaders), named(ANIMALS))
    run._val_loop.dataloaders = dict(a=named(ANIMALS), b=named(('y', 'x')))
    run._val_loop.evaluators = {}
    with pytest.raises(ValueError, match="class 0 is 'x' in the training"):
        ClassNamesHook().before_run(run)
    run._val_loop.dataloaders['b'] = named(('x', 'y'))
    hook = ClassNamesHook()
    hook.before_run(run)
    metas = dict(a=dict(classes=ANIMALS), b=dict(classes=('y', 'x')))
    run._resume = True
    with pytest.raises(ValueError, match="class 0 is 'y' in the checkpoint"):
        hook.after_load_checkpoint(run, dict(meta=dict(dataset_meta=metas)))
    # of one of the tasks alone
    hook.after_load_checkpoint(run, dict(meta=dict(dataset_meta=metas['a'])))


def check_metric(folder, data):
    """Check data with a metric whose file has the animals."""
    content = dict(
        images=[dict(id=1, file_name='a.jpg', height=4, width=4)],
        annotations=[],
        categories=[dict(id=i, name=name) for i, name in enumerate(ANIMALS)],
    )
    (folder / 'a.json').write_text(json.dumps(content))
    run = runner(model_of(3), test=data)
    run._test_loop.evaluator.metrics = [CocoMetric(ann_file=str(folder / 'a.json'))]
    ClassNamesHook().before_run(run)


def test_the_file_of_a_metric(tmp_path):
    check_metric(tmp_path, named(ANIMALS))
    with pytest.raises(ValueError, match="class 0 is 'ant' in the evaluator's ann_file"):
        check_metric(tmp_path, named(ANIMALS[::-1]))


def test_the_file_of_things_of_a_panoptic_model(tmp_path):
    check_metric(tmp_path, named((*ANIMALS, 'sky', 'sea'), **STUFF))
    with pytest.raises(ValueError, match="class 0 is 'ant' in the evaluator's ann_file"):
        check_metric(tmp_path, named((*ANIMALS[::-1], 'sky', 'sea'), **STUFF))


@pytest.mark.parametrize(
    ('stage', 'resume', 'saved', 'outcome'),
    [
        ('test', False, ANIMALS, None),
        ('test', False, ANIMALS[::-1], 'error'),
        ('test', False, ('ant', 'bee'), 'error'),
        ('test', False, None, None),
        ('train', True, ANIMALS[::-1], 'error'),
        # Heads of the same size are loaded, others are new.
        ('train', False, ANIMALS[::-1], 'warning'),
        ('train', False, ('ant', 'bee'), None),
    ],
)
def test_names_of_a_checkpoint(stage, resume, saved, outcome):
    run = runner(model_of(3), **{stage: named(ANIMALS)}, resume=resume)
    hook = ClassNamesHook()
    hook.before_run(run)
    checkpoint = dict(meta=dict(dataset_meta=saved and dict(CLASSES=saved)))
    if outcome == 'error':
        with pytest.raises(ValueError, match=r'in the checkpoint, but.*metainfo=dict\(c'):
            hook.after_load_checkpoint(run, checkpoint)
    else:
        hook.after_load_checkpoint(run, checkpoint)
    assert run.logger.warning.called == (outcome == 'warning')
