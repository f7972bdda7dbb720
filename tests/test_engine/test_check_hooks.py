from types import SimpleNamespace

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.models import FCNHead, UPerHead
from mmseg.structures import SegDataSample
from torch import nn

from kpu_mm.engine.check_hooks import BackboneCheckHook, ClassCountHook


def head(count):
    module = nn.Linear(1, 1)
    module.num_classes = count
    return module


def model_of(count):
    model = nn.Module()
    model.head = head(count)
    model.rpn_head = head(1)  # object or not: no class of the data
    return model


def loader(length=None):
    metainfo = {} if length is None else dict(classes=('x',) * length)
    return SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo))


def runner(model, loader):
    return SimpleNamespace(model=model, train_dataloader=loader)


def classified(label):
    return DataSample().set_gt_label(label)


def segmented(label):
    labels = torch.full((1, 4, 4), 255)
    labels[0, 1, 1] = label
    return SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=dict(img_path='b.jpg'))


def detected(label):
    return DetDataSample(gt_instances=InstanceData(labels=torch.tensor([0, label])))


SAMPLES = (classified, segmented, detected)


def test_names_of_classes():
    ClassCountHook().before_train(runner(model_of(5), loader(5)))
    ClassCountHook().before_train(runner(model_of(5), loader()))
    with pytest.raises(ValueError, match='have 6 classes, but head has'):
        ClassCountHook().before_train(runner(model_of(5), loader(6)))


def test_several_tasks():
    model = nn.Module()
    model.tasks = nn.ModuleDict(dict(a=model_of(5), b=model_of(3)))
    loaders = SimpleNamespace(loaders=dict(a=loader(5), b=loader(3)))
    hook = ClassCountHook()
    hook.before_train(runner(model, loaders))
    batches = {k: dict(data_samples=[classified(2)]) for k in 'ab'}
    hook.before_train_iter(None, 0, dict(streams=batches))
    batches['b'] = dict(data_samples=[segmented(3)])
    with pytest.raises(ValueError, match=r'b\.jpg has label 3, but num_cl'):
        hook.before_train_iter(None, 0, dict(streams=batches))


@pytest.mark.parametrize('sample', SAMPLES)
def test_labels(sample):
    hook = ClassCountHook()
    hook.before_train(runner(model_of(5), loader()))
    batch = dict(data_samples=[sample(0), sample(4)])
    hook.before_train_iter(None, 0, batch)
    batch = dict(data_samples=[sample(0), sample(5)])
    with pytest.raises(ValueError, match='num_classes=5 allows 0 to 4'):
        hook.before_train_iter(None, 0, batch)


def test_empty_image():
    hook = ClassCountHook()
    hook.before_train(runner(model_of(5), loader()))
    none = InstanceData(labels=torch.zeros(0, dtype=torch.long))
    batch = dict(data_samples=[DetDataSample(gt_instances=none)])
    hook.before_train_iter(None, 0, batch)


@pytest.mark.parametrize('sample', [classified(255), detected(255)])
def test_255_is_a_class_but_of_segmentation(sample):
    hook = ClassCountHook()
    run = runner(model_of(5), loader())
    hook.before_train(run)
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
